//! Checks what was built, and writes down the types of all its values: what a reader sees, and what runtimes plan memory by.

use crate::Request;
use tensormill_graph::{CheckError, Elem, Program};
use tensormill_model::{Error, Result};

/// Checks the graph and declares its values.
///
/// # Errors
/// A graph that contradicts itself: whatever was asked for, that is this crate's fault.
pub(crate) fn declared(request: &Request<'_>, mut program: Program) -> Result<Program> {
    program.check().map_err(|e| fault(&e))?;
    let inferred = program.infer(&|slot| weight(request, &program, slot)).map_err(|e| fault(&e))?;
    let graph = &mut program.graph;
    let given = |name: &str| {
        graph.inputs.iter().chain(&graph.outputs).any(|v| v.name == name)
            || graph.initializers.iter().any(|t| t.name == name)
    };
    let values = inferred.values().filter(|(name, _)| !given(name));
    graph.values = values.filter_map(|(name, fact)| fact.info(name)).collect();
    Ok(program)
}

fn fault(e: &CheckError) -> Error {
    Error::failed(format!("the graph that was built contradicts itself: {e}")).hint(
        "this is a fault of tensormill, not of the model: please report it with the model's config.json",
    )
}

/// Element type and dimensions of an initializer once weights are bound to it.
fn weight(request: &Request<'_>, program: &Program, slot: usize) -> Option<(Elem, Vec<i64>)> {
    let weight = program.weights.get(slot)?;
    let dims = weight.dims.clone().or_else(|| Some((request.tensors)(&weight.tensor)?.dims().to_vec()));
    let mut dims: Vec<i64> = dims?.into_iter().map(|n| i64::try_from(n).ok()).collect::<Option<_>>()?;
    if let (true, [.., a, b]) = (weight.transposed, &mut dims[..]) {
        std::mem::swap(a, b);
    }
    // Those that keep their type have one that only the checkpoint knows.
    Some((if weight.keep_type { Elem::UNDEFINED } else { request.float }, dims))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Form};
    use tensormill_graph::{Builder, Dim, Weight};
    use tensormill_model::{ErrorKind, MemoryAssets};
    use tensormill_tensor::Shape;

    /// `x * weight`, where `x` has four columns and the checkpoint's weight is `[6, 4]`.
    fn product(weight: Weight, declared: i64) -> Result<Program> {
        let mut b = Builder::new("g", 17, Elem::F16);
        let x = b.input("x", Elem::F16, &["rows".into(), Dim::Known(4)]);
        let weight = b.weight(weight);
        let y = b.node("MatMul", &[&x, &weight], vec![]);
        let y = b.node("Relu", &[&y], vec![]);
        b.output("y", &y, Elem::F16, &["rows".into(), Dim::Known(declared)]);
        let request = Request {
            config: &Config::new(serde_json::Map::new()),
            assets: &MemoryAssets::default(),
            tensors: &|name| (name == "w").then(|| Shape::new(vec![6, 4]).expect("small")),
            opset: 17,
            float: Elem::F16,
            keep_io_types: false,
            form: Form::Standard,
            metadata: Vec::new(),
        };
        super::declared(&request, b.finish(8, Vec::new()))
    }

    #[test]
    fn values_between_are_declared() {
        let graph = product(Weight::transposed("w"), 6).expect("fits").graph;
        let [value] = &graph.values[..] else { panic!("{:?}", graph.values) };
        assert_eq!((value.name.as_str(), value.elem()), ("/MatMul_output_0", Some(Elem::F16)));
        assert_eq!(value.dims(), Some(vec!["rows".into(), Dim::Known(6)]));
    }

    #[test]
    fn contradictions_are_faults_of_the_builder() {
        for (weight, columns, what) in [
            (Weight::plain("w"), 4, "node 0 (MatMul \"/MatMul\"): inner dimensions of"),
            (
                Weight::transposed("w"),
                5,
                "\"y\" is declared as float16[rows, 5]; what is computed is float16[rows, 6]",
            ),
        ] {
            let e = product(weight, columns).expect_err("does not fit");
            assert!(e.kind() == ErrorKind::Failed && e.to_string().contains(what), "{e}");
        }
    }
}
