//! Whether the token may write, asked before anything is done.

use super::wire::{Wire, value};
use serde_json::Value;
use tensormill_model::{Error, Result};

const NEW_TOKEN: &str = "make a token with write access at https://huggingface.co/settings/tokens and give it in HF_TOKEN, \
                         or log in with `hf auth login`";

/// Asks who the token belongs to, and refuses one that can only read.
pub fn check(wire: Wire<'_>) -> Result<()> {
    if wire.hub.client().token().is_none() {
        return Err(Error::usage("publishing needs an access token, and there is none").hint(NEW_TOKEN));
    }
    // Asking who one is has a limit of its own, which says nothing of whether one may write.
    let answer = wire.get(wire.url("/api/whoami-v2")?, &[401, 403, 429])?;
    match answer.status() {
        401 | 403 => Err(Error::usage("the Hub does not know this access token").hint(NEW_TOKEN)),
        429 => Ok(()),
        _ => judge(&value(answer)?, wire.repo()),
    }
}

fn judge(who: &Value, repo: &str) -> Result<()> {
    let token = &who["auth"]["accessToken"];
    match token["role"].as_str() {
        Some("read") => {
            Err(Error::usage("this token can only read: it has no write permission").hint(NEW_TOKEN))
        }
        Some("fineGrained") => fine_grained(&token["fineGrained"], repo),
        // Of organisations' and later kinds of tokens the first write will say.
        _ => Ok(()),
    }
}

/// A fine-grained token says for which users, organisations and repositories it may do what. Only where nothing at all
/// may be written, or nothing of this namespace, is it refused here: the server has the last word.
fn fine_grained(scopes: &Value, repo: &str) -> Result<()> {
    let Some(scoped) = scopes["scoped"].as_array() else { return Ok(()) };
    let may = |permissions: &Value| {
        let mut each = permissions.as_array().into_iter().flatten().filter_map(Value::as_str);
        each.any(|p| p == "repo.write" || p == "repo.content.write")
    };
    let namespace = repo.split('/').next().unwrap_or_default();
    let here = |entity: &Value| entity["name"].as_str().is_none_or(|n| n == namespace || n == repo);
    let writes = scoped.iter().any(|s| may(&s["permissions"]) && here(&s["entity"]));
    if writes || may(&scopes["global"]) {
        return Ok(());
    }
    Err(Error::usage(format!("this fine-grained token has no write permission for repositories of {namespace}"))
        .hint("edit it at https://huggingface.co/settings/tokens: \"Write access to contents/settings of all repos\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_that_cannot_write_are_refused() {
        let who = |token: Value| json!({ "name": "me", "auth": { "accessToken": token } });
        let scoped = |name: &str, permission: &str| {
            let entity = json!({ "type": "org", "name": name });
            who(json!({ "role": "fineGrained", "fineGrained": {
                "global": [], "scoped": [{ "entity": entity, "permissions": [permission] }] } }))
        };
        for (token, may) in [
            (who(json!({ "role": "write" })), true),
            (who(json!({ "role": "read" })), false),
            (json!({ "name": "app" }), true),
            (scoped("org", "repo.write"), true),
            (scoped("org/model", "repo.write"), true),
            (scoped("org", "repo.content.read"), false),
            (scoped("other", "repo.write"), false),
        ] {
            assert_eq!(judge(&token, "org/model").is_ok(), may, "{token}");
        }
    }
}
