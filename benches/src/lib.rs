//! Benchmarks live in `benches/benches`, recorded results in `benches/results`.
