//! Layers that families have in common.
