//! Checkpoints of many files put together by hand, in memory: what training leaves, with every lie that is wanted.

use super::build::{Member, dict, long, pickle, storage, tensor, text, zip};
use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Instant};
use tensormill_model::{Error, ErrorKind, Folder, Limits, MemoryStore, Result, Store};
use tensormill_pickle::{PickleOptions, Training};

/// A folder in memory.
#[derive(Clone, Default)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl Folder for Files {
    fn label(&self) -> String {
        "folder".into()
    }
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
    fn store(&self, name: &str) -> Result<Option<Arc<dyn Store>>> {
        let found = self.0.get(name).cloned();
        Ok(found.map(|bytes| Arc::new(MemoryStore { name: name.to_owned(), bytes }) as Arc<dyn Store>))
    }
}

impl Files {
    pub fn with(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.0.insert(name.to_owned(), bytes);
        self
    }

    /// Names of the tensors, or why not; in no time.
    pub fn open(&self) -> Result<Vec<String>> {
        let started = Instant::now();
        let training = Training::of_folder(&self.names())?.expect("a checkpoint is recognised");
        // A tensor that claims more than files have would have been refused.
        let most: u64 = self.0.values().map(|b| 16 * b.len() as u64).sum();
        let opened = training.open(self, &Limits::default(), &PickleOptions::default());
        assert!(started.elapsed().as_millis() < 1000, "{:?}", started.elapsed());
        let Some(reader) = opened? else { return Ok(Vec::new()) };
        let names: Vec<String> = reader.index().tensors.iter().map(|t| t.name.clone()).collect();
        for (t, spec) in reader.index().tensors.iter().enumerate() {
            assert!(spec.bytes().unwrap() <= most, "{spec:?}");
            super::whole(&*reader, t)?;
        }
        Ok(names)
    }

    /// It is refused: kind, file, tensor, words of the message.
    pub fn refused(&self, kind: ErrorKind, file: &str, tensor: Option<&str>, words: &str) {
        let e = self.open().err().unwrap_or_else(|| panic!("{words}: this was accepted"));
        check(&e, kind, file, tensor, words);
    }
}

pub fn check(e: &Error, kind: ErrorKind, file: &str, tensor: Option<&str>, words: &str) {
    assert_eq!(e.kind(), kind, "{e}");
    assert_eq!(e.file_name(), Some(file), "{e}");
    assert_eq!(e.tensor_name(), tensor, "{e}");
    assert!(e.message().contains(words), "{words:?} in {e}");
}

/// An object of a class, made without arguments, with this state.
pub fn object(class: &str, state: &[u8]) -> Vec<u8> {
    let (module, name) = class.rsplit_once('.').unwrap();
    [format!("c{module}\n{name}\n)").as_bytes(), b"\x81", state, b"b"].concat()
}

pub fn ints(v: &[i64]) -> Vec<u8> {
    [b"(", &v.iter().flat_map(|n| long(*n)).collect::<Vec<_>>()[..], b"t"].concat()
}

pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [b"](", &items.concat()[..], b"e"].concat()
}

/// A generator of numbers that are the same every time.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    /// Changes a few bytes in the first 4096 and, less often, the last.
    pub fn spoil(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.roll(3) {
            let at = self.roll(bytes.len().min(4096));
            let at = if self.roll(4) == 0 { bytes.len() - 1 - at } else { at };
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'.', self.roll(256) as u8][self.roll(8)];
        }
    }
}

/// Rounds of changing bytes. More find more; this many take a moment.
pub fn rounds() -> u64 {
    std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(60)
}

thread_local! {
    /// What spoils pickles before they are put into archives, whose checksums then hold.
    pub static SPOIL: RefCell<Option<Dice>> = const { RefCell::new(None) };
}

/// An archive of a pickle, and storage `0` of 64 bytes.
pub fn archive(object: &[u8]) -> Vec<u8> {
    let mut pickle = pickle(&[object]);
    SPOIL.with_borrow_mut(|dice| {
        if let Some(dice) = dice
            && dice.roll(2) == 0
        {
            dice.spoil(&mut pickle);
        }
    });
    zip(&[
        Member::stored("a/data.pkl", pickle),
        Member::stored("a/data/0", (0..64).collect::<Vec<u8>>()),
        Member::stored("a/data/1", vec![0; 64]),
    ])
}

/// The first elements of storage `0`.
pub fn floats(n: i64) -> Vec<u8> {
    tensor(&storage("FloatStorage", "0", 16), 0, &[n], &[1])
}

pub mod dcp {
    use super::{Files, archive, dict, floats, ints, list, long, object, pickle, text};

    const CLASSES: &str = "torch.distributed.checkpoint.metadata";

    /// First element and size of a chunk; path, offset and length of its place.
    #[derive(Clone)]
    pub struct Chunk {
        pub at: Vec<i64>,
        pub size: Vec<i64>,
        pub path: String,
        pub offset: i64,
        pub length: i64,
        pub how: Vec<u8>,
    }

    pub fn chunk(at: &[i64], size: &[i64]) -> Chunk {
        let length = archive(&floats(2)).len() as i64;
        Chunk {
            at: at.to_vec(),
            size: size.to_vec(),
            path: "__0_0.distcp".into(),
            offset: 0,
            length,
            how: b"N".to_vec(),
        }
    }

    /// `.metadata` of a tensor `w`, beside a file with one archive of two floats.
    pub fn folder(size: &[i64], chunks: &[Chunk]) -> Files {
        let class = |name: &str| format!("{CLASSES}.{name}");
        let properties = object(&class("TensorProperties"), b"(ctorch\nfloat32\nNt");
        let boxes: Vec<Vec<u8>> = chunks
            .iter()
            .map(|c| {
                let state = dict(&[("offsets", &ints(&c.at)), ("sizes", &ints(&c.size))]);
                object(&class("ChunkStorageMetadata"), &state)
            })
            .collect();
        let w = dict(&[("properties", &properties), ("size", &ints(size)), ("chunks", &list(&boxes))]);
        let tensors = dict(&[("w", &object(&class("TensorStorageMetadata"), &w))]);
        let places: Vec<u8> = chunks
            .iter()
            .flat_map(|c| {
                let index =
                    object(&class("MetadataIndex"), &dict(&[("fqn", &text("w")), ("offset", &ints(&c.at))]));
                let place = dict(&[
                    ("relative_path", &text(&c.path)),
                    ("offset", &long(c.offset)),
                    ("length", &long(c.length)),
                    ("transform_descriptors", &c.how),
                ]);
                [index, object("torch.distributed.checkpoint.filesystem._StorageInfo", &place)].concat()
            })
            .collect();
        let places = [b"}(", &places[..], b"u"].concat();
        let root = object(
            &class("Metadata"),
            &dict(&[("state_dict_metadata", &tensors), ("storage_data", &places), ("planner_data", b"N")]),
        );
        Files::default().with(".metadata", pickle(&[&root])).with("__0_0.distcp", archive(&floats(2)))
    }
}

/// What a rank holds, as a `DTensor` of a mesh of one dimension.
pub struct Dtensor {
    pub size: Vec<i64>,
    pub local: Vec<u8>,
    pub world: i64,
    pub coordinate: Vec<i64>,
    pub placement: Vec<u8>,
    /// Its name.
    pub name: &'static str,
    /// Whether its mesh is that of torch before 2.9.
    pub old: bool,
    /// Which dimensions of the mesh divide which of its own, in order.
    pub order: Vec<u8>,
}

pub const PLACEMENTS: &str = "torch.distributed.tensor.placement_types";

pub fn shard(dim: i64) -> Vec<u8> {
    object(&format!("{PLACEMENTS}.Shard"), &dict(&[("dim", &long(dim))]))
}

pub fn strided(factor: i64) -> Vec<u8> {
    object(
        &format!("{PLACEMENTS}._StridedShard"),
        &dict(&[("dim", &long(0)), ("split_factor", &long(factor))]),
    )
}

impl Dtensor {
    pub fn of_two(rank: i64) -> Self {
        Self {
            size: vec![4],
            local: floats(2),
            world: 2,
            coordinate: vec![rank],
            placement: shard(0),
            name: "w",
            old: false,
            order: b"N".to_vec(),
        }
    }

    pub fn file(&self) -> Vec<u8> {
        let ranks = tensor(&storage("IntStorage", "1", self.world), 0, &[self.world], &[1]);
        let old = [("mesh", &ranks[..]), ("_coordinate_on_dim", &ints(&self.coordinate))];
        let new = dict(&[
            ("_rank_map", &ranks),
            (
                "_layout",
                &object("torch.distributed._mesh_layout._MeshLayout", &dict(&[("shape", &long(self.world))])),
            ),
            ("_coordinate_on_dim", &ints(&self.coordinate)),
        ]);
        let mesh = if self.old { dict(&old) } else { new };
        let mesh = object("torch.distributed.device_mesh.DeviceMesh", &mesh);
        let spec = dict(&[
            ("mesh", &mesh),
            ("placements", &list(std::slice::from_ref(&self.placement))),
            ("shard_order", &self.order),
        ]);
        let spec = object("torch.distributed.tensor._dtensor_spec.DTensorSpec", &spec);
        let args = [&b"(ctorch.distributed.tensor\nDTensor\nctorch\nfloat32\n"[..], &ints(&self.size), b")t"]
            .concat();
        let state = dict(&[("_local_tensor", &self.local), ("_spec", &spec)]);
        let whole = [
            &b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_wrapper_subclass\nctorch.distributed.tensor\nDTensor\n"[..],
            &args,
            &state,
            b"tR",
        ]
        .concat();
        archive(&dict(&[(self.name, &whole)]))
    }

    /// Two files, of which this is the first.
    pub fn folder(&self) -> Files {
        Files::default().with("rank0.pt", self.file()).with("rank1.pt", Self::of_two(1).file())
    }
}

/// A checkpoint of ZeRO with one parameter `w`.
pub struct Zero {
    pub stage: u8,
    pub count: Vec<u8>,
    pub shape: Vec<i64>,
    pub paddings: Vec<u8>,
    /// Flat vectors of each rank.
    pub groups: Vec<Vec<Vec<u8>>>,
}

impl Zero {
    pub fn stage(stage: u8) -> Self {
        Self {
            stage,
            count: long(2),
            shape: vec![2, 4],
            paddings: b"N".to_vec(),
            groups: vec![vec![floats(4)], vec![floats(4)]],
        }
    }

    pub fn folder(&self) -> Files {
        let model = dict(&[
            ("module", b"}"),
            ("buffer_names", b"]"),
            ("param_shapes", &list(&[dict(&[("w", &ints(&self.shape))])])),
            ("shared_params", b"}"),
        ]);
        let key = if self.stage == 3 { "fp32_flat_groups" } else { "single_partition_of_fp32_groups" };
        let mut files = Files::default();
        for (rank, groups) in self.groups.iter().enumerate() {
            let state = dict(&[
                ("zero_stage", &[b'K', self.stage]),
                ("partition_count", &self.count),
                ("param_alignment_paddings", &self.paddings),
                (key, &list(groups)),
            ]);
            let name = format!("zero_pp_rank_{rank}_mp_rank_00");
            files = files.with(
                &format!("{name}_optim_states.pt"),
                archive(&dict(&[("optimizer_state_dict", &state)])),
            );
            if self.stage == 3 {
                files = files.with(&format!("{name}_model_states.pt"), archive(&model));
            }
        }
        if self.stage < 3 { files.with("mp_rank_00_model_states.pt", archive(&model)) } else { files }
    }
}
