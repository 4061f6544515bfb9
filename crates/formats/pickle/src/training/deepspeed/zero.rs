//! The flat vectors of all processes, and what their headers say of how they are divided.

use super::{Names, Stores, file::File};
use crate::{data::Part, tensors::Collector};
use tensormill_model::{Error, Limits, Result};
use tensormill_tensor::DType;

/// Vectors of one process. Stage 3 has one for every thousand million parameters or so.
const MAX_GROUPS: usize = 1 << 16;

/// The flat vectors of all processes.
pub(super) struct Zero {
    pub stage: u64,
    pub world: u64,
    pub dtype: DType,
    /// Number of the file and vector of each group, by rank.
    pub ranks: Vec<(usize, Vec<Part>)>,
    /// Elements of padding behind each parameter of each group, where the checkpoint has any.
    pub paddings: Option<Vec<Vec<u64>>>,
}

impl Zero {
    pub fn read(names: &Names, stores: &mut Stores<'_>, limits: &Limits) -> Result<Self> {
        let mut out = Self { stage: 0, world: 0, dtype: DType::F32, ranks: Vec::new(), paddings: None };
        for (i, name) in names.optimizers.values().enumerate() {
            let file = File::open(stores, name, limits)?;
            out.rank(i, &file, names, limits).map_err(|e| e.file(&file.name))?;
        }
        Ok(out)
    }

    fn rank(&mut self, i: usize, file: &File, names: &Names, limits: &Limits) -> Result<()> {
        if i == 0 {
            self.header(file, limits)?;
            Names::complete(&names.optimizers, self.world)?;
        }
        let key = if self.stage == 3 { "fp32_flat_groups" } else { "single_partition_of_fp32_groups" };
        let groups = file.get(&["optimizer_state_dict", key]);
        let groups = groups.ok_or_else(|| Error::malformed(format!("there is no {key} in it")))?;
        let groups = file.items(Some(groups));
        if groups.len() > MAX_GROUPS {
            return Err(Error::over_limit(format!("{} parameter groups", groups.len())));
        }
        let mut collector = Collector::new(&file.opened, &file.name, limits);
        let mut parts = Vec::new();
        for (g, v) in groups.iter().enumerate() {
            let named = |e: Error| e.tensor(format!("{key}.{g}"));
            let part = collector.part(file.program(), 0, *v).map_err(named)?;
            if i == 0 && g == 0 {
                self.dtype = part.dtype;
            }
            if part.dims.len() != 1 || part.dtype != self.dtype {
                return Err(named(Error::malformed(format!(
                    "a flat vector of type {} and shape {:?}",
                    part.dtype, part.dims
                ))));
            }
            // In stage 3 every process has the same share of every parameter.
            if let Some((_, first)) = self.ranks.first().filter(|_| self.stage == 3)
                && first.get(g).is_none_or(|f| f.dims != part.dims)
            {
                return Err(named(Error::malformed("its length is not that of rank 0")));
            }
            parts.push(part);
        }
        if self.ranks.first().is_some_and(|(_, first)| first.len() != parts.len()) {
            return Err(Error::malformed(format!("{} parameter groups, unlike rank 0", parts.len())));
        }
        self.ranks.push((file.number, parts));
        Ok(())
    }

    /// What the first file says of all.
    fn header(&mut self, file: &File, limits: &Limits) -> Result<()> {
        let state = |key: &str| file.get(&["optimizer_state_dict", key]);
        let stage = state("zero_stage").and_then(|v| file.int(v));
        self.stage = stage.filter(|s| (1..=3).contains(s)).ok_or_else(|| {
            Error::unsupported("it has no ZeRO stage from 1 to 3")
                .hint("without ZeRO, leave only mp_rank_00_model_states.pt in the folder")
        })?;
        let count = state("partition_count").ok_or_else(|| Error::malformed("it has no partition_count"))?;
        // Parameter groups may differ in it.
        let counts = match file.int(count) {
            Some(n) => vec![Some(n)],
            None => file.items(Some(count)).iter().map(|v| file.int(*v)).collect(),
        };
        self.world = counts
            .into_iter()
            .flatten()
            .max()
            .filter(|n| *n > 0)
            .ok_or_else(|| Error::malformed("its partition_count is no number"))?;
        if let Some(v) = state("param_alignment_paddings").filter(|_| self.stage < 3) {
            let groups = file.items(Some(v));
            let count: usize = groups.iter().map(|g| file.items(Some(*g)).len()).sum();
            if count as u64 > limits.tensors {
                return Err(Error::over_limit(format!("paddings of {count} parameters")));
            }
            let mut lists = Vec::new();
            for group in groups {
                let numbers = file.items(Some(*group));
                lists.push(numbers.iter().map(|n| file.int(*n).unwrap_or_default()).collect());
            }
            self.paddings = Some(lists);
        }
        Ok(())
    }
}
