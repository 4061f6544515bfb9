//! What operators take and give, version by version: ONNX's own and those that ONNX Runtime adds, from their schemas.
//!
//! The table is made by `golden/generators/onnx_operators.py`, which says how its lines are to be read. Operators that it does
//! not have are not wrong: files may bring their own.

use crate::{Elem, Kind, Opset, ir};
use std::{collections::HashMap, sync::LazyLock};

/// How many values stand at a place of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Many {
    /// One.
    One,
    /// One or none.
    Optional,
    /// At least so many, to the end; of one type if `alike`.
    Rest { least: usize, alike: bool },
}

/// A place of an operator: an input or an output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Formal {
    /// Type variable: places of one variable have one type. Empty where the type is a fixed one.
    pub(crate) variable: &'static str,
    /// Bit `n` for element type `n`; bit 0 for what is no tensor.
    mask: u32,
    pub(crate) many: Many,
}

impl Formal {
    /// Whether values of this element type may stand there.
    pub(crate) fn takes(&self, elem: Elem) -> bool {
        u32::try_from(elem.0).is_ok_and(|n| self.mask.checked_shr(n).unwrap_or(0) & 1 == 1)
    }
    /// The element type, where there is only one.
    pub(crate) fn only(&self) -> Option<Elem> {
        (self.mask.is_power_of_two() && self.mask > 1).then(|| Elem(self.mask.trailing_zeros() as i32))
    }
}

/// One version of an operator.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) inputs: Vec<Formal>,
    pub(crate) outputs: Vec<Formal>,
    /// Name, kind, and whether it must be there.
    pub(crate) attributes: Vec<(&'static str, Kind, bool)>,
}

/// The place of the value at `index`.
pub(crate) fn formal(all: &[Formal], index: usize) -> Option<&Formal> {
    all.get(index).or_else(|| all.last().filter(|f| matches!(f.many, Many::Rest { .. })))
}

/// The least and largest number of values; `None` where there is no largest.
pub(crate) fn arity(all: &[Formal]) -> (usize, Option<usize>) {
    let least = all.iter().rposition(|f| f.many == Many::One).map_or(0, |i| i + 1);
    match all.last().map(|f| f.many) {
        Some(Many::Rest { least: more, .. }) => (least.max(all.len() - 1 + more), None),
        _ => (least, Some(all.len())),
    }
}

/// What the table knows of an operator in one version of its domain.
pub(crate) enum Known {
    /// No operator of this name in any version, or a domain that the table does not have.
    Nothing,
    /// It is there since a later version.
    Since(i64),
    /// It is not there any more since this version.
    Until(i64),
    /// It is there.
    Now(&'static Operator),
}

/// Versions of an operator, oldest first; `None` for the one since which it is gone.
type Versions = Vec<(i64, Option<Operator>)>;

/// Operators by domain and name.
type Table = HashMap<&'static str, HashMap<&'static str, Versions>>;

static TABLE: LazyLock<Table> = LazyLock::new(|| parse(include_str!("../data/operators.txt")));

/// Looks an operator up in the version of its domain.
pub(crate) fn find(domain: &str, op: &str, version: i64) -> Known {
    let Some(versions) = TABLE.get(standard(domain)).and_then(|d| d.get(op)) else { return Known::Nothing };
    match versions.iter().rev().find(|(since, _)| *since <= version) {
        Some((_, Some(operator))) => Known::Now(operator),
        Some((since, None)) => Known::Until(*since),
        None => versions.first().map_or(Known::Nothing, |(since, _)| Known::Since(*since)),
    }
}

/// One name for the standard domain, which has two.
pub(crate) fn standard(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Version of a domain's operators in a list of versions.
pub(crate) fn version(opsets: &[Opset], domain: &str) -> Option<i64> {
    opsets.iter().find(|o| standard(&o.domain) == standard(domain)).map(|o| o.version)
}

/// The newest version of ONNX's own operators.
pub(crate) fn newest() -> i64 {
    let versions = TABLE.get("").into_iter().flat_map(HashMap::values).flatten();
    versions.map(|(since, _)| *since).max().unwrap_or_default()
}

/// What is known of a node's operator.
pub(crate) fn of_node(node: &ir::Node, opsets: &[Opset]) -> Option<&'static Operator> {
    match find(&node.domain, &node.op, version(opsets, &node.domain)?) {
        Known::Now(operator) => Some(operator),
        _ => None,
    }
}

/// Reads the table. Lines that cannot be read are left out: a test reads all of them.
fn parse(text: &'static str) -> Table {
    let mut table = Table::new();
    let mut domain = "";
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        if let Some(name) = line.strip_prefix("domain ") {
            domain = standard(name);
        } else if let Some((name, since, operator)) = parse_line(line) {
            table.entry(domain).or_default().entry(name).or_default().push((since, operator));
        }
    }
    table
}

fn parse_line(line: &'static str) -> Option<(&'static str, i64, Option<Operator>)> {
    let (name, rest) = line.split_once(' ')?;
    let (since, rest) = rest.split_once(' ')?;
    let since = since.parse().ok()?;
    if rest == "-" {
        return Some((name, since, None));
    }
    let mut parts = rest.split(';').map(str::trim);
    let (inputs, outputs) = parts.next()?.split_once(" > ")?;
    let attributes = parts.next()?.split_whitespace().map(parse_attribute).collect::<Option<_>>()?;
    let variables: Vec<(&str, u32)> =
        parts.next()?.split_whitespace().map(parse_variable).collect::<Option<_>>()?;
    let formals = |list: &'static str| -> Option<Vec<Formal>> {
        list.split(',').filter(|f| *f != "-").map(|f| parse_formal(f, &variables)).collect()
    };
    Some((name, since, Some(Operator { inputs: formals(inputs)?, outputs: formals(outputs)?, attributes })))
}

fn parse_attribute(text: &'static str) -> Option<(&'static str, Kind, bool)> {
    let (name, kind) = text.split_once(':')?;
    let number = kind.trim_end_matches('!');
    Some((name, Kind(number.parse().ok()?), number != kind))
}

fn parse_variable(text: &'static str) -> Option<(&'static str, u32)> {
    let (name, mask) = text.split_once('=')?;
    Some((name, u32::from_str_radix(mask, 16).ok()?))
}

fn parse_formal(text: &'static str, variables: &[(&str, u32)]) -> Option<Formal> {
    let (kind, many) = match text.find(['?', '*', '~']) {
        None => (text, Many::One),
        Some(at) => match (&text[..at], &text[at..=at], &text[at + 1..]) {
            (kind, "?", _) => (kind, Many::Optional),
            (kind, mark, least) => (kind, Many::Rest { least: least.parse().ok()?, alike: mark == "*" }),
        },
    };
    let (variable, mask) = match kind.strip_prefix('=') {
        Some(mask) => ("", u32::from_str_radix(mask, 16).ok()?),
        None => (kind, variables.iter().find(|(name, _)| *name == kind)?.1),
    };
    Some(Formal { variable, mask, many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let text = include_str!("../data/operators.txt");
        let lines = text.lines().filter(|l| !l.starts_with('#') && !l.starts_with("domain "));
        for line in lines.clone() {
            assert!(parse_line(line).is_some(), "{line}");
        }
        let all = || TABLE.values().flat_map(HashMap::values);
        assert_eq!(all().map(Vec::len).sum::<usize>(), lines.count());
        for versions in all() {
            assert!(versions.is_sorted_by(|a, b| a.0 < b.0), "{versions:?}");
        }
    }

    #[test]
    fn versions_of_operators_follow_each_other() {
        let Known::Now(split) = find("", "Split", 17) else { panic!("Split is there") };
        assert_eq!(arity(&split.inputs), (1, Some(2)));
        assert!(!split.attributes.iter().any(|a| a.0 == "num_outputs"));
        let Known::Now(split) = find("ai.onnx", "Split", 26) else { panic!("Split is there") };
        assert!(split.attributes.contains(&("num_outputs", Kind::INT, false)));
        assert!(matches!(find("", "LayerNormalization", 16), Known::Since(17)));
        assert!(matches!(find("", "Upsample", 12), Known::Until(10)));
        assert!(matches!(find("", "Nonsense", 17), Known::Nothing));
        assert!(matches!(find("elsewhere", "Add", 17), Known::Nothing));
        assert!(matches!(find("com.microsoft", "GroupQueryAttention", 1), Known::Now(_)));
    }

    #[test]
    fn types_are_those_of_the_schema() {
        let Known::Now(conv) = find("", "Conv", 21) else { panic!("Conv is there") };
        assert!(conv.inputs[0].takes(Elem::F16) && !conv.inputs[0].takes(Elem::BF16));
        let Known::Now(conv) = find("", "Conv", 22) else { panic!("Conv is there") };
        assert!(conv.inputs[0].takes(Elem::BF16) && !conv.inputs[0].takes(Elem(40)));
        let Known::Now(equal) = find("", "Equal", 13) else { panic!("Equal is there") };
        assert_eq!((equal.outputs[0].only(), equal.inputs[0].only()), (Some(Elem::BOOL), None));
    }
}
