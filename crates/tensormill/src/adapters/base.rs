//! What is known of the model that an adapter belongs to: names, configuration, and the GGUF form's metadata.

use crate::Source;
use std::{path::Path, sync::Arc};
use tensormill_arch::{Architecture, Config, for_config};
use tensormill_model::{Assets, Error, Limits, Metadata, Result};
use tensormill_store::LocalDir;

/// A base model, as far as an adapter's names and rows need it.
pub(super) struct Base {
    /// Names of its tensors, where its weights are at hand.
    pub(super) names: Vec<String>,
    assets: Arc<dyn Assets>,
    /// Metadata of a GGUF file.
    gguf: Option<Metadata>,
}

impl Base {
    pub(super) fn of(source: &Source) -> Self {
        Self {
            names: source.model.tensors.iter().map(|t| t.name().to_owned()).collect(),
            assets: Arc::clone(&source.model.assets),
            gguf: source.is_gguf().then(|| source.model.metadata.clone()),
        }
    }

    /// Opens a base; of a folder without weights, its configuration.
    ///
    /// # Errors
    /// When there is neither.
    pub(super) fn open(path: &Path) -> Result<Self> {
        match Source::open(path, &Limits::default()) {
            Ok(mut source) => {
                crate::quantized::open(&mut source).map_err(|e| e.file(path.display()))?;
                Ok(Self::of(&source))
            }
            Err(e) if path.is_dir() => {
                let dir = LocalDir::open(path)?;
                if !dir.contains("config.json") {
                    return Err(e);
                }
                Ok(Self { names: Vec::new(), assets: Arc::new(dir), gguf: None })
            }
            Err(e) => Err(e),
        }
    }

    /// Its architecture and configuration.
    ///
    /// # Errors
    /// Models of unknown architectures, and GGUF files, which have neither.
    pub(super) fn architecture(&self) -> Result<(&'static dyn Architecture, Config, &dyn Assets)> {
        if self.gguf.is_some() {
            return Err(Error::unsupported("a GGUF file does not say what its tensors were called")
                .hint("give the Hugging Face folder of the base; its config.json is enough"));
        }
        let config = Config::read(&*self.assets)?;
        Ok((for_config(&config)?, config, &*self.assets))
    }

    /// The metadata that its GGUF form has, as far as names and rows need them.
    ///
    /// # Errors
    /// Models of unknown architectures.
    pub(super) fn metadata(&self) -> Result<Metadata> {
        if let Some(metadata) = &self.gguf {
            return Ok(metadata.clone());
        }
        let (arch, config, assets) = self.architecture()?;
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", arch.gguf_name());
        metadata.extend(arch.hyper_parameters(&config, assets)?);
        Ok(metadata)
    }
}
