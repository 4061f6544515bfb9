//! What a scan tells: findings with their places, and the sums. Plain data; how it is shown is the caller's.

use crate::rules::Rule;
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// A loader may run or read something that the scan cannot judge, or the file could not be looked at.
    Suspicious,
    /// A loader that obeys the file runs code, leaves the folder, or a secret would be published.
    Dangerous,
}

/// Where in a file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Place {
    /// Member of an archive.
    pub member: Option<String>,
    /// Byte: of a pickle, its opcode's; counted from the member's start where there is one.
    pub offset: Option<u64>,
    /// Line, counted from one.
    pub line: Option<u64>,
    /// Path in a JSON document (`$.auto_map.AutoModel`), or key of a GGUF file.
    pub path: Option<String>,
}

impl Place {
    /// A byte.
    pub(crate) fn at(offset: u64) -> Self {
        Self { offset: Some(offset), ..Self::default() }
    }
    /// A line.
    pub(crate) fn line(line: u64) -> Self {
        Self { line: Some(line), ..Self::default() }
    }
    /// A path in a document.
    pub(crate) fn path(path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }
    /// A member of an archive.
    pub(crate) fn member(name: &str) -> Self {
        Self { member: Some(name.to_owned()), ..Self::default() }
    }

    /// For people: `archive/data.pkl, byte 22`; empty for the whole file.
    pub fn text(&self) -> String {
        let parts = [
            self.member.clone(),
            self.path.clone(),
            self.line.map(|n| format!("line {n}")),
            self.offset.map(|n| format!("byte {n}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Stable name of the rule, `pickle/dangerous-import`.
    pub rule: &'static str,
    /// How bad it is; the same for all findings of a rule.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// What is there. Never a secret, only its beginning.
    pub found: String,
    /// What a loader would do, and what to do next.
    pub advice: &'static str,
}

/// How many findings there are of each severity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Dangerous ones.
    pub dangerous: u64,
    /// Suspicious ones.
    pub suspicious: u64,
    /// Worth knowing.
    pub info: u64,
}

/// What a scan found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Shape of this document.
    pub schema: &'static str,
    /// The paths as given.
    pub paths: Vec<String>,
    /// Files looked at.
    pub files: u64,
    /// Bytes they have; of weights, only headers are read.
    pub bytes: u64,
    /// Findings by severity.
    pub counts: Counts,
    /// Files that contradict their own format, so that parts of them could not be looked at.
    pub malformed: u64,
    /// Whether there are more findings than are listed.
    pub truncated: bool,
    /// Findings, file by file.
    pub findings: Vec<Finding>,
}

/// Findings of each severity that are listed of one file, and in all; further ones are counted. A crowd of harmless ones
/// must not hide others.
const MOST_PER_FILE: usize = 200;
const MOST: u64 = 5000;

impl Report {
    pub(crate) fn new(paths: Vec<String>) -> Self {
        Self {
            schema: "tensormill-scan/1",
            paths,
            files: 0,
            bytes: 0,
            counts: Counts::default(),
            malformed: 0,
            truncated: false,
            findings: Vec::new(),
        }
    }

    /// The worst severity found.
    pub fn worst(&self) -> Option<Severity> {
        match self.counts {
            Counts { dangerous: 1.., .. } => Some(Severity::Dangerous),
            Counts { suspicious: 1.., .. } => Some(Severity::Suspicious),
            Counts { info: 1.., .. } => Some(Severity::Info),
            _ => None,
        }
    }
}

/// Takes the findings of one file.
pub(crate) struct Sink<'a> {
    report: &'a mut Report,
    file: String,
    /// By severity.
    taken: [usize; 3],
    malformed: bool,
    /// What findings' places start with: the member of an archive that is being looked at.
    pub member: Option<String>,
}

impl<'a> Sink<'a> {
    pub fn new(report: &'a mut Report, file: String) -> Self {
        Self { report, file, taken: [0; 3], malformed: false, member: None }
    }

    pub fn add(&mut self, rule: &'static Rule, mut place: Place, found: impl AsRef<str>) {
        let counts = &mut self.report.counts;
        let all = match rule.severity {
            Severity::Dangerous => &mut counts.dangerous,
            Severity::Suspicious => &mut counts.suspicious,
            Severity::Info => &mut counts.info,
        };
        *all += 1;
        let too_many = *all > MOST;
        if rule.malformed && !self.malformed {
            self.malformed = true;
            self.report.malformed += 1;
        }
        let taken = &mut self.taken[rule.severity as usize];
        if *taken == MOST_PER_FILE || too_many {
            self.report.truncated = true;
            return;
        }
        *taken += 1;
        if place.member.is_none() {
            place.member.clone_from(&self.member);
        }
        self.report.findings.push(Finding {
            rule: rule.id,
            severity: rule.severity,
            file: self.file.clone(),
            place,
            found: shown(found.as_ref()),
            advice: rule.advice,
        });
    }
}

/// One line of bounded length without control characters: what files say must not reach a terminal as it is.
pub fn shown(text: &str) -> String {
    const MOST: usize = 300;
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= MOST {
            out.push_str("...");
            break;
        }
        let odd = c.is_control() || crate::template::is_hidden(c);
        if odd { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}
