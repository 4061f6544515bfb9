//! Every rule: its stable name, how bad it is, what a loader would do, and what to do next. One line each; the table in
//! `docs/scan.md` is made from this one.

use crate::finding::Severity::{self, Dangerous, Info, Suspicious};

/// One kind of finding.
#[derive(Debug)]
pub struct Rule {
    /// Stable name.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Whether the file contradicts its own format, so that not all of it could be looked at.
    pub malformed: bool,
    /// What is found, for the table of rules.
    pub what: &'static str,
    /// What a loader would do, and what to do next.
    pub advice: &'static str,
}

macro_rules! rules {
    ($($name:ident $id:literal $severity:ident $($malformed:ident)?: $what:literal => $advice:literal;)*) => {
        $(pub(crate) static $name: Rule = Rule {
            id: $id,
            severity: $severity,
            malformed: rules!(@ $($malformed)?),
            what: $what,
            advice: $advice,
        };)*
        /// All rules, by area.
        pub static RULES: &[&Rule] = &[$(&$name),*];
    };
    (@ malformed) => { true };
    (@) => { false };
}

rules! {
    PICKLE_DANGEROUS "pickle/dangerous-import" Dangerous: "a pickle imports what runs code, touches files or the network" =>
        "Unpickling runs this with your rights: do not load the file; ask its publisher for safetensors.";
    PICKLE_COMPUTED "pickle/computed-import" Dangerous: "a pickle imports a name that it computes, or an extension code" =>
        "What unpickling would import cannot be read from the file, and no writer makes such pickles: do not load it.";
    PICKLE_UNKNOWN "pickle/unknown-import" Suspicious: "a pickle imports a name that is in neither list" =>
        "Unpickling imports this module and runs its code: load with `weights_only=True`, or convert with `tensormill convert`, which runs nothing.";
    PICKLE_NESTED "pickle/nested" Suspicious: "a pickle unpickles bytes that it carries; they are scanned as well" =>
        "A loader follows the inner pickle without `weights_only`: load neither unless you trust the publisher.";
    PICKLE_BROKEN "pickle/broken" Suspicious malformed: "a pickle cannot be followed to its end" =>
        "A loader runs what comes before the place where it breaks off: do not load it; download it again, or ask for another file.";
    PICKLE_TRAILING "pickle/trailing-data" Info: "bytes follow the last pickle" =>
        "Loaders ignore them, or read them as arrays (joblib): look at what wrote the file if you did not expect them.";
    TORCHSCRIPT_CODE "torchscript/code" Suspicious: "a TorchScript archive with code" =>
        "`torch.jit.load` compiles and runs this code when the model is called: prefer a file of weights alone.";
    TORCHSCRIPT_FILE "torchscript/file-access" Dangerous: "TorchScript code that reads or writes files, or calls custom operators" =>
        "Calling the model does this with your rights: read the member before you load the archive.";
    NUMPY_OBJECT "numpy/object-array" Suspicious: "an array of Python objects, which is a pickle; it is scanned as well" =>
        "`numpy.load(allow_pickle=True)` unpickles it: leave `allow_pickle` off, and ask for plain arrays.";
    KERAS_LAMBDA "keras/lambda" Dangerous: "a Keras model with a Lambda layer" =>
        "Loading with `safe_mode=False`, or in Keras 2, runs Python bytecode from the file: do not; ask for a model without Lambda layers.";
    KERAS_MODULE "keras/foreign-module" Suspicious: "a Keras configuration that names a module outside of Keras" =>
        "Keras before 3.9 imports the module and calls what is named: update Keras, and look at the module.";
    KERAS_DANGEROUS "keras/dangerous-module" Dangerous: "a Keras configuration that names a module that runs code" =>
        "Keras before 3.9 imports the module and calls what is named (CVE-2025-1550): do not load it.";
    TENSORFLOW_FILE "tensorflow/file-op" Dangerous: "a graph that reads or writes files" =>
        "Running the graph does this with your rights: do not run it; look at the node that is named.";
    TENSORFLOW_PYTHON "tensorflow/python-op" Suspicious: "a graph that calls back into Python" =>
        "Running the graph calls a function that the process registered: look at the code that belongs to the model.";
    TENSORFLOW_BROKEN "tensorflow/broken" Suspicious malformed: "a graph that cannot be read to its end" =>
        "Parts of it were not looked at: download it again, or do not load it.";
    CODE_AUTO_MAP "code/auto-map" Suspicious: "a configuration that names Python code of the repository" =>
        "With `trust_remote_code=True` a loader imports that code: read it first, or leave the option off.";
    CODE_TRUST "code/trust-remote-code" Suspicious: "a configuration that asks for trust in remote code" =>
        "Tools that pass the setting on run code of the repository: remove it, and decide where you load.";
    CODE_PIPELINE "code/custom-pipeline" Suspicious: "a configuration that names a pipeline or component of its own" =>
        "A loader imports the module that is named when remote code is trusted: read it first.";
    CODE_MODULE "code/module-type" Suspicious: "a configuration that has a library import a module of its choice" =>
        "The loader imports the module that is named: see that it is one you installed and trust.";
    CODE_NAMED "code/named-file" Suspicious: "a Python file that a configuration names" =>
        "A loader that trusts remote code runs this file: read it first.";
    CODE_PYTHON "code/python-file" Info: "a Python file that no configuration names" =>
        "Nothing loads it by itself: read it before you run it.";
    CODE_NATIVE "code/executable" Suspicious: "compiled or shell code among a model's files" =>
        "Weights need no programs: do not run it; find out what it is for.";
    ONNX_CUSTOM "onnx/custom-op" Suspicious: "an operator of a domain that ONNX Runtime does not have" =>
        "The model needs a native library of custom operators, which runs with your rights: load none that you do not trust.";
    ONNX_PYTHON "onnx/python-op" Dangerous: "an operator that runs Python" =>
        "Running the model imports and calls Python code that it names: do not run it.";
    ONNX_PATH "onnx/external-path" Dangerous: "weights in a file outside of the model's folder" =>
        "A loader reads, and a converter may write, whatever file the path leads to: do not load it.";
    ONNX_LINK "onnx/external-link" Dangerous: "weights behind a symbolic link that leaves the model's folder" =>
        "A loader reads the file that the link leads to: replace the link by the file that it should be.";
    ONNX_BROKEN "onnx/broken" Suspicious malformed: "an ONNX model that cannot be read to its end" =>
        "Parts of it were not looked at: download it again, or do not load it.";
    TEMPLATE_DUNDER "template/dunder" Dangerous: "a chat template that reaches for Python's internals" =>
        "A loader that renders it outside of a sandbox runs code: do not load it; take the template from the original model.";
    TEMPLATE_OBJECT "template/odd-object" Suspicious: "a chat template that uses objects which escapes start from" =>
        "No chat template needs these: compare it with the original model's.";
    TEMPLATE_ATTR "template/attr-filter" Suspicious: "a chat template that looks attributes up by computed names" =>
        "It can hide what it reaches for: compare it with the original model's.";
    TEMPLATE_INCLUDE "template/include" Suspicious: "a chat template that loads another one" =>
        "A renderer with a file loader reads other files: compare it with the original model's.";
    TEMPLATE_URL "template/url" Suspicious: "a chat template with an address that is no web site's" =>
        "The model is told of this address, or its user is: compare it with the original model's.";
    TEMPLATE_HIDDEN "template/hidden-text" Suspicious: "a chat template with characters that are not seen" =>
        "The model reads text that you do not see: compare it with the original model's.";
    TEMPLATE_LOOP "template/huge-loop" Suspicious: "a chat template with a loop or a text of huge size" =>
        "Rendering takes all time or memory: compare it with the original model's.";
    TEMPLATE_LONG "template/too-long" Suspicious: "a chat template too long to be one" =>
        "It was not looked at as a whole: compare it with the original model's.";
    LFS_POINTER "lfs/pointer" Suspicious: "a Git LFS pointer in place of a file" =>
        "The file itself is not here and was not looked at: run `git lfs pull` and scan again.";
    SECRET_HF "secret/huggingface-token" Dangerous: "a Hugging Face token" =>
        "Whoever gets the file can act as its owner: revoke the token, and remove it from the file and its history.";
    SECRET_AWS "secret/aws-key" Dangerous: "an AWS access key" =>
        "Whoever gets the file can act as its owner: revoke the key, and remove it from the file and its history.";
    SECRET_GITHUB "secret/github-token" Dangerous: "a GitHub token" =>
        "Whoever gets the file can act as its owner: revoke the token, and remove it from the file and its history.";
    SECRET_AI "secret/api-key" Dangerous: "a key of OpenAI's, Anthropic's or a like service" =>
        "Whoever gets the file can spend its owner's money: revoke the key, and remove it from the file and its history.";
    SECRET_SLACK "secret/slack-token" Dangerous: "a Slack token or webhook" =>
        "Whoever gets the file can read or write there: revoke it, and remove it from the file and its history.";
    SECRET_GOOGLE "secret/google-api-key" Dangerous: "a Google API key" =>
        "Whoever gets the file can act as its owner: revoke the key, and remove it from the file and its history.";
    SECRET_PRIVATE "secret/private-key" Dangerous: "a private key" =>
        "Whoever gets the file can act as its owner: replace the key, and remove it from the file and its history.";
    SECRET_JWT "secret/jwt" Suspicious: "a signed token (JWT)" =>
        "It may still be accepted somewhere: see what it is for, and remove it.";
    SECRET_URL "secret/url-password" Suspicious: "a user and a password in an address" =>
        "Whoever gets the file can log in there: change the password, and remove it.";
    SECRET_PASSWORD "secret/password-key" Info: "a key in a configuration that is called like a secret's" =>
        "See whether the value is one; if so, change it and remove it.";
    ZIP_ESCAPE "archive/path-escape" Dangerous: "a member whose name leads out of the archive's folder" =>
        "A loader that unpacks it writes files elsewhere: do not unpack it.";
    ZIP_LINK "archive/symlink" Suspicious: "a member that is a symbolic link" =>
        "A loader that unpacks it may then write or read through the link: do not unpack it.";
    ZIP_DUPLICATE "archive/duplicate" Suspicious: "two members of one name" =>
        "Loaders differ in which one they read, so that what was looked at may not be what is loaded: do not load it.";
    ZIP_TWO_VIEWS "archive/two-views" Suspicious: "a member's own header and the directory disagree" =>
        "Loaders differ in which one they believe, so that what was looked at may not be what is loaded: do not load it.";
    ZIP_BOMB "archive/bomb" Suspicious: "members that overlap, or that unpack to far more than they take" =>
        "Unpacking fills memory or disk: do not unpack it.";
    ZIP_OPAQUE "archive/opaque" Suspicious: "members or archives that cannot be looked into (encrypted, or another compression)" =>
        "A loader with the password or the library would read what was not looked at: unpack it and scan again.";
    ZIP_BROKEN "archive/broken" Suspicious malformed: "a zip archive whose directory cannot be read" =>
        "Parts of it were not looked at: download it again, or do not load it.";
    FILE_PICKLE "file/hidden-pickle" Dangerous: "a pickle under a name of a format that has none" =>
        "Loaders that look at the content unpickle it: do not load it.";
    FILE_FORMAT "file/wrong-format" Suspicious: "a file that is not of the format its name says" =>
        "Loaders differ in whether they go by name or content: find out which it is before you load it.";
    SAFETENSORS_BROKEN "safetensors/broken" Suspicious malformed: "a safetensors file with a broken header" =>
        "Loaders refuse it or read wrong bytes: download it again.";
    GGUF_BROKEN "gguf/broken" Suspicious malformed: "a GGUF file with a broken header" =>
        "Loaders refuse it, and old ones read or write out of bounds: download it again.";
    JSON_BROKEN "json/broken" Suspicious malformed: "a configuration that is no JSON" =>
        "Loaders refuse it, and it was not looked at: download it again.";
    INDEX_ESCAPE "index/path-escape" Dangerous: "a shard index that names a file outside of the folder" =>
        "A loader opens that file as weights: do not load it.";
    LINK_LEAVES "link/leaves-folder" Suspicious: "a symbolic link that leads out of the folder" =>
        "A loader, or an upload, reads a file that is not the model's: replace the link by the file that it should be.";
    FILE_SPECIAL "file/special" Info: "a device, socket or pipe" =>
        "It was not opened: remove it.";
    FILE_UNREADABLE "file/unreadable" Suspicious: "a file or folder that cannot be read" =>
        "It was not looked at: change its permissions, or scan as its owner.";
    SCAN_LIMIT "scan/limit" Suspicious: "something too deep, long or large to be looked at as a whole" =>
        "What lies behind the limit was not looked at: look at it by hand, or do not load it.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_advice_is_a_sentence() {
        let mut ids: Vec<&str> = RULES.iter().map(|r| r.id).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|w| w[0] != w[1]));
        for r in RULES {
            assert!(r.advice.ends_with('.') && r.id.split('/').count() == 2, "{}", r.id);
        }
    }
}
