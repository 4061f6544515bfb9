//! The Hugging Face Hub.

pub mod push;

pub use tensormill_hub::{Hub, Settings};
