//! What is known of the model that an adapter belongs to: names, configuration, and the GGUF form's metadata.

use crate::{
    Source,
    location::{Found, Location, Opening},
};
use std::sync::Arc;
use tensormill_arch::{Architecture, Config, for_config};
use tensormill_model::{Assets, Error, Metadata, Result};

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
    pub(super) fn open(at: &Location, how: &Opening) -> Result<Self> {
        match Source::open_at(at, how) {
            Ok(mut source) => {
                crate::quantized::open(&mut source).map_err(|e| e.file(at))?;
                Ok(Self::of(&source))
            }
            Err(e) => match at.find(&how.access) {
                Ok((_, Found::Folder(dir))) if dir.contains("config.json") => {
                    Ok(Self { names: Vec::new(), assets: dir, gguf: None })
                }
                _ => Err(e),
            },
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
