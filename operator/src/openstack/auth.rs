//! Who logs in, as an entry of a `clouds.yaml` says it: gathered below `auth` under the names of today, as openstacksdk
//! does, checked, and made into the one request that Keystone is asked for a token with.

use serde_json::{Map, Value, json};
use url::Url;

use super::entry::{Refusal, refuse, tidy};

/// What `auth` may say; what stands beside `auth` in older files is moved there.
const KEYS: [&str; 14] = [
    "auth_url",
    "username",
    "user_id",
    "password",
    "user_domain_id",
    "user_domain_name",
    "project_id",
    "project_name",
    "project_domain_id",
    "project_domain_name",
    "domain_id",
    "domain_name",
    "default_domain_id",
    "default_domain_name",
];
/// The rest of them: an application credential.
const CREDENTIAL: [&str; 3] =
    ["application_credential_id", "application_credential_name", "application_credential_secret"];
/// Names of older files, and those of today, which win.
const OLD_NAMES: [(&str, &str); 3] =
    [("tenant_id", "project_id"), ("tenant_name", "project_name"), ("user_name", "username")];
/// What would give another token than the user meant, and what to write.
const NOT_SUPPORTED: [(&str, &str); 8] = [
    ("trust_id", "trusts are not supported; use an application credential"),
    ("system_scope", "is no project; name the project, as project_id or project_name with its domain"),
    ("default_domain", "is not a key of openstacksdk; write user_domain_name and project_domain_name"),
    ("token", "tokens end within hours; use an application credential"),
    ("auth_token", "tokens end within hours; use an application credential"),
    ("passcode", "nobody can be asked for a second factor; use an application credential"),
    ("auth_methods", "nobody can be asked for a second factor; use an application credential"),
    ("identity_provider", "nobody can log in at an identity provider; use an application credential"),
];

/// How Keystone is asked for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Password,
    ApplicationCredential,
}

impl Method {
    /// The name that openstacksdk has for it in `auth_type`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Method::Password => "v3password",
            Method::ApplicationCredential => "v3applicationcredential",
        }
    }
}

/// Brings the entry into one form: `auth_type` is one of the two methods', and `auth` has everything that is said of
/// the user and the project, as strings, and nothing else.
pub(super) fn normalise(entry: &mut Map<String, Value>) -> Result<(Method, Url), Refusal> {
    let mut auth = gather(entry)?;
    let method = method(entry, &auth)?;
    fill_domains(&mut auth);
    check(&auth, method)?;
    let url = auth_url(&auth)?;
    entry.insert("auth_type".into(), method.name().into());
    entry.insert("auth".into(), auth.into());
    Ok((method, url))
}

fn known() -> impl Iterator<Item = &'static str> {
    KEYS.into_iter().chain(CREDENTIAL)
}

/// Everything about the login, by the names of today.
fn gather(entry: &mut Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let mut auth = match entry.remove("auth") {
        None => Map::new(),
        Some(Value::Object(auth)) => tidy(&auth).map_err(|(key, reason)| (below(&key), reason))?,
        Some(_) => return Err(refuse("auth", "must be a map")),
    };
    let aside = known().chain(OLD_NAMES.map(|(old, _)| old)).chain(NOT_SUPPORTED.map(|(key, _)| key));
    for key in aside {
        let Some(value) = entry.remove(key) else { continue };
        if auth.get(key).is_some_and(|other| *other != value) {
            return Err(refuse(key, "is another one than in auth; leave one of the two out"));
        }
        auth.insert(key.into(), value);
    }
    for (old, new) in OLD_NAMES {
        if let Some(value) = auth.remove(old) {
            auth.entry(new).or_insert(value);
        }
    }
    for (key, value) in &auth {
        if let Some((_, reason)) = NOT_SUPPORTED.iter().find(|(name, _)| name == key) {
            return Err(refuse(&below(key), reason));
        }
        if !known().any(|name| name == key) {
            return Err(refuse(&below(key), "is not known; correct it, or leave it out"));
        }
        if !value.is_string() {
            // An unquoted 0123 is a number to YAML and not the password any more.
            return Err(refuse(&below(key), "must be a string; put it in quotes"));
        }
    }
    Ok(auth)
}

fn below(key: &str) -> String {
    format!("auth.{key}")
}

/// What `auth_type` says, or `auth_plugin` in older files, or else what there is.
fn method(entry: &mut Map<String, Value>, auth: &Map<String, Value>) -> Result<Method, Refusal> {
    let old = entry.remove("auth_plugin");
    let written = match entry.remove("auth_type").or(old) {
        None if auth.contains_key("application_credential_secret") => {
            return Ok(Method::ApplicationCredential);
        }
        None => return Ok(Method::Password),
        Some(Value::String(written)) => written,
        Some(_) => return Err(refuse("auth_type", "must be a string")),
    };
    match written.to_ascii_lowercase().replace(['_', '-'], "").as_str() {
        "password" | "v3password" => Ok(Method::Password),
        "applicationcredential" | "v3applicationcredential" => Ok(Method::ApplicationCredential),
        _ => Err((
            "auth_type".into(),
            format!("{written:?} is not supported; use v3applicationcredential (preferred) or password"),
        )),
    }
}

/// `domain_id` and `domain_name` are the user's and the project's where those have none of their own, and before
/// `default_domain_id` and `default_domain_name`.
fn fill_domains(auth: &mut Map<String, Value>) {
    for of in ["id", "name"] {
        let Some(domain) = auth.remove(&format!("domain_{of}")) else { continue };
        for whose in ["user", "project"] {
            auth.entry(format!("{whose}_domain_{of}")).or_insert_with(|| domain.clone());
        }
    }
    for of in ["id", "name"] {
        let Some(domain) = auth.remove(&format!("default_domain_{of}")) else { continue };
        for whose in ["user", "project"] {
            if !["id", "name"].iter().any(|of| auth.contains_key(&format!("{whose}_domain_{of}"))) {
                auth.insert(format!("{whose}_domain_{of}"), domain.clone());
            }
        }
    }
}

/// Keystone would say of all of these that it needs a domain, or that the password is wrong.
fn check(auth: &Map<String, Value>, method: Method) -> Result<(), Refusal> {
    let has = |key: &str| auth.contains_key(key);
    let needs = |keys: &[&str], why: &str| match keys.iter().any(|key| has(key)) {
        true => Ok(()),
        false => Err((keys.iter().map(|key| below(key)).collect::<Vec<_>>().join(" or "), why.to_string())),
    };
    let for_method = format!("is needed for {}", method.name());
    match method {
        Method::Password => {
            needs(&["password"], &for_method)?;
            needs(&["project_id", "project_name"], &for_method)?;
        }
        Method::ApplicationCredential => {
            needs(&["application_credential_secret"], &for_method)?;
            needs(&["application_credential_id", "application_credential_name"], &for_method)?;
        }
    }
    if method == Method::Password || !has("application_credential_id") {
        needs(&["user_id", "username"], &for_method)?;
        if !has("user_id") {
            needs(&["user_domain_id", "user_domain_name"], "is needed beside a username")?;
        }
    }
    if method == Method::Password && !has("project_id") {
        needs(&["project_domain_id", "project_domain_name"], "is needed beside a project_name")?;
    }
    Ok(())
}

fn auth_url(auth: &Map<String, Value>) -> Result<Url, Refusal> {
    let refused = |reason: &str| refuse("auth.auth_url", reason);
    let text = auth.get("auth_url").and_then(Value::as_str).ok_or_else(|| refused("is missing"))?;
    if text.contains(['{', '}']) {
        return Err(refused("has a placeholder in braces; write the address out"));
    }
    let url = Url::parse(text).map_err(|e| refused(&format!("is no URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(refused("must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(refused("must not contain a user, password or query"));
    }
    if url.path().trim_end_matches('/').ends_with("/v2.0") {
        return Err(refused("is of identity API v2.0; v3 is needed: write it without /v2.0"));
    }
    Ok(url)
}

/// What is posted to `auth/tokens`. Ids win over names, as in openstacksdk. The SDK's own method for application
/// credentials writes the domain of a user who is named where Keystone does not look for it, and gets a 400.
pub(super) fn request(auth: &Map<String, Value>, method: Method) -> Value {
    let domain = |whose: &str| match auth.get(&format!("{whose}_domain_id")) {
        Some(id) => json!({"id": id}),
        None => json!({"name": auth.get(&format!("{whose}_domain_name"))}),
    };
    let mut user = match auth.get("user_id") {
        Some(id) => json!({"id": id}),
        None => json!({"name": auth.get("username"), "domain": domain("user")}),
    };
    match method {
        Method::Password => {
            user["password"] = auth.get("password").cloned().unwrap_or_default();
            let project = match auth.get("project_id") {
                Some(id) => json!({"id": id}),
                None => json!({"name": auth.get("project_name"), "domain": domain("project")}),
            };
            let identity = json!({"methods": ["password"], "password": {"user": user}});
            json!({"auth": {"identity": identity, "scope": {"project": project}}})
        }
        // It is for one project; Keystone refuses a scope beside it.
        Method::ApplicationCredential => {
            let secret = auth.get("application_credential_secret");
            let credential = match auth.get("application_credential_id") {
                Some(id) => json!({"id": id, "secret": secret}),
                None => {
                    let name = auth.get("application_credential_name");
                    json!({"name": name, "secret": secret, "user": user})
                }
            };
            let identity =
                json!({"methods": ["application_credential"], "application_credential": credential});
            json!({"auth": {"identity": identity}})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent for an entry, or the keys that were refused.
    fn sent(entry: Value) -> Result<Value, String> {
        let Value::Object(mut entry) = entry else { unreachable!("an entry is a map") };
        let (method, _) = normalise(&mut entry).map_err(|(key, _)| key)?;
        let auth = entry["auth"].as_object().cloned().unwrap_or_default();
        Ok(request(&auth, method)["auth"].take())
    }

    /// An `auth` with these keys more; null takes one away.
    fn password(more: Value) -> Value {
        let mut auth = json!({"auth_url": "https://a/v3", "username": "u", "password": "pw", "user_domain_name": "Default",
            "project_name": "p", "project_domain_name": "Default"});
        for (key, value) in more.as_object().into_iter().flatten() {
            auth[key] = value.clone();
        }
        auth.as_object_mut().into_iter().for_each(|auth| auth.retain(|_, v| !v.is_null()));
        auth
    }

    fn by_password(user: Value, project: Value) -> Result<Value, String> {
        Ok(
            json!({"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": project}}),
        )
    }

    #[test]
    fn keystone_is_asked_for_what_openstacksdk_asks_it_for() {
        let user = json!({"name": "u", "domain": {"name": "Default"}, "password": "pw"});
        let project = json!({"name": "p", "domain": {"name": "Default"}});
        let ordinary = by_password(user.clone(), project.clone());
        let no_domains = json!({"user_domain_name": null, "project_domain_name": null});
        let with = |more: Value| {
            let mut all = no_domains.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"auth": password(all)})
        };
        let by_id = by_password(
            json!({"name": "u", "domain": {"id": "d"}, "password": "pw"}),
            json!({"name": "p", "domain": {"id": "d"}}),
        );
        for (written, expected) in [
            (json!({"auth": password(json!({}))}), &ordinary),
            // Templates leave empty values behind.
            (json!({"auth": password(json!({"user_domain_id": "", "project_id": ""}))}), &ordinary),
            (json!({"auth_type": "", "auth": password(json!({}))}), &ordinary),
            (json!({"auth_plugin": "password", "auth": password(json!({}))}), &ordinary),
            // Older files.
            (json!({"auth": password(json!({"project_name": null, "tenant_name": "p"}))}), &ordinary),
            (json!({"auth": password(json!({"tenant_name": "older"}))}), &ordinary),
            (json!({"auth": password(json!({"username": null, "user-name": "u"}))}), &ordinary),
            (json!({"auth": password(json!({"project_name": null, "project-name": "p"}))}), &ordinary),
            // Beside auth.
            (password(json!({})), &ordinary),
            (json!({"auth": password(json!({"auth_url": null})), "auth_url": "https://a/v3"}), &ordinary),
            (json!({"auth": password(json!({"project_name": null})), "tenant-name": "p"}), &ordinary),
            (json!({"auth": password(json!({})), "project_name": "p"}), &ordinary),
            // One domain for both.
            (with(json!({"domain_name": "Default"})), &ordinary),
            (with(json!({"domain_id": "d"})), &by_id),
            (with(json!({"default_domain_id": "d"})), &by_id),
            (json!({"domain_id": "d", "auth": password(no_domains.clone())}), &by_id),
            (json!({"auth": password(json!({"default_domain_id": "d"}))}), &ordinary),
            // Ids win.
            (
                json!({"auth": password(json!({"user_id": "u1", "project_id": "p1"}))}),
                &by_password(json!({"id": "u1", "password": "pw"}), json!({"id": "p1"})),
            ),
            (
                json!({"auth": password(json!({"user_domain_id": "d"}))}),
                &by_password(json!({"name": "u", "domain": {"id": "d"}, "password": "pw"}), project.clone()),
            ),
        ] {
            let mut entry = json!({});
            entry.as_object_mut().unwrap().extend(tidy(written.as_object().unwrap()).unwrap());
            assert_eq!(&sent(entry), expected, "{written}");
        }
    }

    #[test]
    fn application_credentials_by_id_and_by_name() {
        let credential = |more: Value| {
            let mut auth = json!({"auth_url": "https://a", "application_credential_secret": "s"});
            auth.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            sent(json!({"auth": auth}))
        };
        let expected = |credential: Value| {
            Ok(
                json!({"identity": {"methods": ["application_credential"], "application_credential": credential}}),
            )
        };
        assert_eq!(
            credential(json!({"application_credential_id": "x"})),
            expected(json!({"id": "x", "secret": "s"}))
        );
        let scoped = json!({"application_credential_id": "x", "project_name": "p", "password": "pw"});
        assert_eq!(credential(scoped), expected(json!({"id": "x", "secret": "s"})));
        let domain = json!({"name": "Default"});
        let named =
            json!({"application_credential_name": "mover", "username": "u", "user_domain_name": "Default"});
        assert_eq!(
            credential(named),
            expected(json!({"name": "mover", "secret": "s", "user": {"name": "u", "domain": domain}}))
        );
        let with_id = json!({"application_credential_name": "mover", "user_id": "u1"});
        assert_eq!(
            credential(with_id),
            expected(json!({"name": "mover", "secret": "s", "user": {"id": "u1"}}))
        );
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let auth = |more: Value| json!({"auth": password(more)});
        let named = |more: Value| {
            let mut auth = json!({"auth_url": "https://a", "application_credential_secret": "s",
                "application_credential_name": "mover"});
            auth.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"auth": auth})
        };
        for (written, key) in [
            (json!({}), "auth.password"),
            (json!({"auth": []}), "auth"),
            (auth(json!({"password": null})), "auth.password"),
            (auth(json!({"password": 12345})), "auth.password"),
            (auth(json!({"password": true})), "auth.password"),
            (auth(json!({"project_name": 123})), "auth.project_name"),
            (auth(json!({"project_name": null})), "auth.project_id or auth.project_name"),
            (auth(json!({"username": null})), "auth.user_id or auth.username"),
            (auth(json!({"user_domain_name": null})), "auth.user_domain_id or auth.user_domain_name"),
            (auth(json!({"project_domain_name": ""})), "auth.project_domain_id or auth.project_domain_name"),
            (auth(json!({"default_domain": "Default"})), "auth.default_domain"),
            (auth(json!({"trust_id": "t"})), "auth.trust_id"),
            (auth(json!({"system_scope": "all"})), "auth.system_scope"),
            (auth(json!({"passcode": "1"})), "auth.passcode"),
            (json!({"token": "t", "auth": password(json!({}))}), "auth.token"),
            (auth(json!({"usename": "u"})), "auth.usename"),
            (json!({"username": "other", "auth": password(json!({}))}), "username"),
            (auth(json!({"auth_url": null})), "auth.auth_url"),
            (auth(json!({"auth_url": "a.example:5000"})), "auth.auth_url"),
            (auth(json!({"auth_url": "https://{region_name}.example"})), "auth.auth_url"),
            (auth(json!({"auth_url": "https://a/v2.0"})), "auth.auth_url"),
            (auth(json!({"auth_url": "https://a/v3?x=1"})), "auth.auth_url"),
            (json!({"auth_type": 3, "auth": password(json!({}))}), "auth_type"),
            (json!({"auth_type": "none"}), "auth_type"),
            (json!({"auth_type": "v3applicationcredential"}), "auth.application_credential_secret"),
            (named(json!({})), "auth.user_id or auth.username"),
            (named(json!({"username": "u"})), "auth.user_domain_id or auth.user_domain_name"),
        ] {
            assert_eq!(sent(written.clone()), Err(key.to_string()), "{written}");
        }
    }
}
