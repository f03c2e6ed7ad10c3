//! The pod that `run` sends: made from flags, or read from a file, which may also have a Job.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::Failure;

/// The container of a pod that is made from flags.
pub(crate) struct Container<'a> {
    pub(crate) name: &'a str,
    pub(crate) image: &'a str,
    pub(crate) command: &'a [String],
    pub(crate) start: Start,
    pub(crate) env: &'a [(String, String)],
}

/// What the command of a container takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The image's entrypoint.
    Command,
    /// What the image hands to its entrypoint.
    Arguments,
}

/// A pod with one container.
pub(crate) fn of_container(container: &Container<'_>) -> Value {
    let mut object = json!({"name": container.name, "image": container.image});
    if !container.command.is_empty() {
        let field = match container.start {
            Start::Command => "command",
            Start::Arguments => "args",
        };
        object[field] = json!(container.command);
    }
    if !container.env.is_empty() {
        let env: Vec<Value> = container.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        object["env"] = json!(env);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "spec": {"restartPolicy": "Never", "containers": [object]}})
}

/// Reads a manifest from a file, or from standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Value, Failure> {
    let failed = |cause: &dyn std::fmt::Display| Failure::Usage(format!("{}: {cause}", path.display()));
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(|cause| failed(&cause))?;
    } else {
        text = std::fs::read_to_string(path).map_err(|cause| failed(&cause))?;
    }
    parse(&text).map_err(|cause| failed(&cause))
}

/// A manifest from JSON or YAML.
fn parse(text: &str) -> Result<Value, String> {
    // JSON is tried first because every number stays exact there.
    let manifest: Value = serde_json::from_str(text).or_else(|_| {
        // A `y` or an `on` is a word, as YAML 1.2 says; a pod's environment is full of them.
        let options = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options(text, options).map_err(|cause| cause.to_string())
    })?;
    match (manifest["kind"].as_str(), manifest.is_object()) {
        (Some("Pod" | "Job"), _) => Ok(manifest),
        (Some(kind), _) => Err(format!("a Pod or a Job is expected, and this is a {kind}")),
        (None, true) => Err("a Pod or a Job is expected, and this has no `kind`".to_owned()),
        (None, false) => Err("a Pod or a Job is expected, and this is no object".to_owned()),
    }
}

/// Gives the pod a name of its own; the broker keeps it as a wish.
pub(crate) fn set_name(manifest: &mut Value, name: &str) {
    // A manifest whose metadata is no object is the broker's to refuse, with the path of the field.
    if manifest["metadata"].is_null() {
        manifest["metadata"] = json!({});
    }
    if let Some(metadata) = manifest["metadata"].as_object_mut() {
        metadata.insert("name".to_owned(), json!(name));
    }
}

/// How many containers of the pod may write lines.
pub(crate) fn count_containers(manifest: &Value) -> usize {
    let count = |field: &str| manifest["spec"][field].as_array().map_or(0, Vec::len);
    count("containers") + count("initContainers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_takes_the_place_of_the_entrypoint_or_of_its_arguments() {
        let command = ["echo".to_owned(), "hi".to_owned()];
        let env = [("A".to_owned(), "1".to_owned())];
        let mut container =
            Container { name: "main", image: "busybox", command: &command, start: Start::Command, env: &env };
        let pod = of_container(&container);
        assert_eq!(pod["spec"]["containers"][0]["command"], json!(["echo", "hi"]));
        assert_eq!(pod["spec"]["containers"][0]["env"], json!([{"name": "A", "value": "1"}]));
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
        assert_eq!(count_containers(&pod), 1);
        container.start = Start::Arguments;
        let pod = of_container(&container);
        assert_eq!(pod["spec"]["containers"][0]["args"], json!(["echo", "hi"]));
        assert!(pod["spec"]["containers"][0].get("command").is_none());
    }

    #[test]
    fn a_manifest_is_yaml_or_json() {
        let yaml = "kind: Pod\nspec:\n  containers:\n  - name: a\n    env:\n    - {name: N, value: \"1\"}\n";
        let json = r#"{"kind":"Pod","spec":{"containers":[{"name":"a","env":[{"name":"N","value":"1"}]}]}}"#;
        assert_eq!(parse(yaml).unwrap(), parse(json).unwrap());
    }

    #[test]
    fn what_is_no_pod_and_no_job_is_refused() {
        for (text, why) in [
            ("kind: CronJob", "this is a CronJob"),
            ("a: 1", "no `kind`"),
            ("- 1", "no object"),
            ("kind: Pod\nkind: Pod", "duplicate"),
            ("{", ""),
            ("kind: Pod\n---\nkind: Pod", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_is_set_with_or_without_metadata() {
        for mut manifest in [json!({"kind": "Pod"}), json!({"kind": "Pod", "metadata": {"name": "old"}})] {
            set_name(&mut manifest, "new");
            assert_eq!(manifest["metadata"]["name"], "new");
        }
    }
}
