//! The requests about Jobs. Each is made once and has the deadline of all requests.

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::api::{ApiError, PodApi, Run};
use super::super::names::JOBS;

impl PodApi {
    fn jobs(&self) -> String {
        self.all(JOBS)
    }

    fn job(&self, name: &str) -> String {
        format!("{}/{name}", self.jobs())
    }

    /// Creates a Job. Unknown and doubled fields are refused, not dropped.
    pub(super) async fn create_job<T: DeserializeOwned>(
        &self,
        job: &Value,
        execution: &str,
        run: Run,
    ) -> Result<T, ApiError> {
        let dry = match run {
            Run::Real => "",
            Run::Dry => "&dryRun=All",
        };
        let path = format!("{}?fieldValidation=Strict&fieldManager=podbroker{dry}", self.jobs());
        self.json(self.request(Method::POST, &path, execution).json(job)?).await
    }

    pub(in crate::backend::pod) async fn get_job<T: DeserializeOwned>(&self, name: &str) -> Result<T, ApiError> {
        self.json(self.request(Method::GET, &self.job(name), name).empty()?).await
    }

    /// Changes a Job by a JSON merge patch, if it still is the one with that uid.
    pub(super) async fn patch_job<T: DeserializeOwned>(
        &self,
        name: &str,
        uid: &str,
        mut changes: Value,
    ) -> Result<T, ApiError> {
        changes["metadata"]["uid"] = json!(uid);
        let path = format!("{}?fieldManager=podbroker", self.job(name));
        let request = self.request(Method::PATCH, &path, name);
        self.json(request.typed("application/merge-patch+json").json(&changes)?).await
    }

    /// Deletes a Job and its pods, if nobody has changed it since.
    pub(super) async fn delete_job(&self, name: &str, uid: &str, version: &str) -> Result<(), ApiError> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": { "uid": uid, "resourceVersion": version },
            "propagationPolicy": "Background",
        });
        self.json::<Value>(self.request(Method::DELETE, &self.job(name), name).json(&options)?).await.map(drop)
    }
}
