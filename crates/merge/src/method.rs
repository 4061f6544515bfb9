//! The methods: what each is called, which parameters mean something to it, and how many models it takes.

use tensormill_model::{Error, Result};

/// How models are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A weighted average.
    Linear,
    /// Spherical interpolation between two models.
    Slerp,
    /// One model's layers as they are, stacked.
    Passthrough,
    /// Sums of changes from a base.
    TaskArithmetic,
    /// The same; small changes are left out, and signs elected.
    Ties,
    /// The same; changes are left out at random.
    DareLinear,
    /// Changes are left out at random, and signs elected.
    DareTies,
}

/// Methods of mergekit that are not computed here.
const UNKNOWN: &[&str] = &[
    "arcee_fusion",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "karcher",
    "model_stock",
    "multislerp",
    "nearswap",
    "nuslerp",
    "ram",
    "ramplus_tl",
    "sce",
];

impl Method {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Linear,
        Self::Slerp,
        Self::Passthrough,
        Self::TaskArithmetic,
        Self::Ties,
        Self::DareLinear,
        Self::DareTies,
    ];

    /// As recipes call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Slerp => "slerp",
            Self::Passthrough => "passthrough",
            Self::TaskArithmetic => "task_arithmetic",
            Self::Ties => "ties",
            Self::DareLinear => "dare_linear",
            Self::DareTies => "dare_ties",
        }
    }

    /// The method of a name.
    ///
    /// # Errors
    /// `Unsupported` for methods of mergekit that are not computed here, `Usage` for what is none.
    pub fn of(name: &str) -> Result<Self> {
        if let Some(found) = Self::ALL.into_iter().find(|m| m.name() == name) {
            return Ok(found);
        }
        let known = Self::ALL.map(Self::name).join(", ");
        if UNKNOWN.contains(&name) {
            return Err(Error::unsupported(format!("the method {name} is not computed by this version"))
                .hint(format!("merge with mergekit-yaml and convert the result; known here are {known}")));
        }
        Err(Error::usage(format!("there is no merge method {name:?}")).hint(format!("choose one of {known}")))
    }

    /// Whether it sums changes from a base.
    pub(crate) fn of_changes(self) -> bool {
        !matches!(self, Self::Linear | Self::Slerp | Self::Passthrough)
    }

    /// Whether signs are elected.
    pub(crate) fn elects(self) -> bool {
        matches!(self, Self::Ties | Self::DareTies)
    }

    /// What `normalize` is where nothing is said.
    pub(crate) fn normalizes(self) -> bool {
        matches!(self, Self::Linear | Self::Ties)
    }

    /// What `rescale` is where nothing is said.
    pub(crate) fn rescales(self) -> bool {
        matches!(self, Self::DareLinear | Self::DareTies)
    }

    /// Whether a parameter means something to it.
    pub(crate) fn takes(self, parameter: &str) -> bool {
        match parameter {
            "weight" | "normalize" => self == Self::Linear || self.of_changes(),
            "t" => self == Self::Slerp,
            "scale" => self == Self::Passthrough,
            // It says how mergekit stores signs, which changes no value.
            "int8_mask" => true,
            _ => self.of_changes(),
        }
    }
}
