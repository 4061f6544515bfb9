//! How encoders look for scales, levels and zero points: one choice for recipes of blocks and for schemes.

use tensormill_model::{Error, Result};
use tensormill_schemes::{Fit, Scheme};
use tensormill_transforms as transforms;

/// A way to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Search {
    /// As the format's own library does.
    #[default]
    Usual,
    /// The least squared error that a slower search finds.
    Best,
    /// The least squared error among shrunken ranges. Schemes only.
    Mse,
    /// Half-quadratic quantization. Schemes only.
    Hqq,
    /// Error feedback by the Hessians of a calibration file. Schemes only.
    Gptq,
    /// Scaling of columns by statistics of a calibration file or importance matrix. Schemes only.
    Awq,
}

impl Search {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Usual, Self::Best, Self::Mse, Self::Hqq, Self::Gptq, Self::Awq];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Best => "best",
            Self::Mse => "mse",
            Self::Hqq => "hqq",
            Self::Gptq => "gptq",
            Self::Awq => "awq",
        }
    }

    /// Whether it goes by what was measured while the model ran, in a calibration file.
    pub fn is_calibrated(self) -> bool {
        matches!(self, Self::Gptq | Self::Awq)
    }

    /// What it comes down to for a recipe or scheme.
    pub(crate) fn name_for(self, quant: &str) -> &'static str {
        match (self, tensormill_schemes::scheme(quant)) {
            (Self::Usual, None) => "ggml",
            (Self::Gptq | Self::Awq, _) | (_, None) => self.name(),
            (_, Some(scheme)) => match scheme.fit(self.of_groups()) {
                Fit::Nearest => "nearest",
                Fit::Mse => Self::Mse.name(),
                Fit::Hqq => Self::Hqq.name(),
            },
        }
    }

    /// Whether a scheme has this search.
    fn is_of(self, scheme: &Scheme) -> bool {
        match self {
            Self::Usual => true,
            Self::Best | Self::Mse => scheme.unsearched().is_none(),
            Self::Hqq => scheme.fit(Fit::Hqq) == Fit::Hqq,
            Self::Gptq | Self::Awq => !scheme.is_cast(),
        }
    }

    /// What should be said of those of some schemes that do not have this search.
    ///
    /// # Errors
    /// `Usage` where none has it, with the searches that there are. [`Self::Best`] asks for no more than there is.
    pub(crate) fn check(self, schemes: &[&'static Scheme]) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let mut idle = 0;
        for s in schemes.iter().filter(|s| !self.is_of(s)) {
            let name = s.name;
            let Some(why) = s.unsearched() else {
                let mse = Self::Mse.name();
                notes.push(format!("--search hqq is for integers: weights that become {name} get {mse}"));
                continue;
            };
            idle += 1;
            notes.push(format!("--search {} does nothing for {name}: {why}", self.name()));
        }
        match (schemes, notes.first()) {
            ([first, ..], Some(note)) if idle == schemes.len() && self != Self::Best => {
                let all = Self::ALL.into_iter().filter(|s| s.is_of(first)).map(Self::name);
                let (name, all) = (first.name, all.collect::<Vec<_>>().join(", "));
                Err(Error::usage(note.as_str()).hint(format!("leave it out; {name} has --search {all}")))
            }
            _ => Ok(notes),
        }
    }

    /// For blocks.
    ///
    /// # Errors
    /// `Usage` for what only schemes have.
    pub(crate) fn of_blocks(self) -> Result<transforms::Search> {
        match self {
            Self::Usual => Ok(transforms::Search::Ggml),
            Self::Best => Ok(transforms::Search::Best),
            Self::Mse | Self::Hqq | Self::Gptq | Self::Awq => {
                Err(Error::usage(format!("--search {} is for schemes, not for GGUF's blocks", self.name()))
                    .hint("--search best finds the least squared error in blocks"))
            }
        }
    }

    /// For groups of codes.
    pub(crate) fn of_groups(self) -> Fit {
        match self {
            Self::Usual | Self::Gptq | Self::Awq => Fit::Nearest,
            Self::Best | Self::Mse => Fit::Mse,
            Self::Hqq => Fit::Hqq,
        }
    }
}

impl std::str::FromStr for Search {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let known = Self::ALL.into_iter().find(|s| s.name() == text);
        known.or(matches!(text, "ggml" | "nearest").then_some(Self::Usual)).ok_or_else(|| {
            format!("there is no search {text:?}; it is usual (ggml, nearest), best, mse, hqq, gptq or awq")
        })
    }
}
