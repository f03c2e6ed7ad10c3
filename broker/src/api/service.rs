//! The calls of the contract, each as its list of steps.

use futures::TryStreamExt as _;
use jiff::Timestamp;
use podbroker_proto::v1 as wire;
use tonic::{Request, Response, Status, Streaming};
use wire::broker_service_server::BrokerService;

use super::call::{Answers, note_execution, note_target};
use super::{Api, check, convert, stream, watch_many};
use crate::backend::Origin;
use crate::execution::SubmitMode;
use crate::telemetry::Rpc;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl BrokerService for Api {
    type WatchExecutionStream = Answers<wire::WatchExecutionResponse>;
    type WatchExecutionsStream = Answers<wire::WatchExecutionsResponse>;
    type CheckTargetStream = Answers<wire::CheckTargetResponse>;

    async fn submit_execution(
        &self,
        request: Request<wire::SubmitExecutionRequest>,
    ) -> Answer<wire::SubmitExecutionResponse> {
        let (call, caller) = self.begin(Rpc::SubmitExecution, request.metadata());
        call.answer(async {
            let caller = caller?;
            let mut request = request.into_inner();
            let features = &self.0.settings.features;
            let selector = convert::selector(request.target.take())?;
            let submit = convert::submit(request, &caller, self.0.settings.limits, features, Timestamp::now())?;
            note_execution(&submit.id);
            let target = self.0.targets.select(&caller, &selector)?;
            note_target(&target.name);
            let mode = submit.mode;
            let submitted = target.backend.submit(&caller.tenant, submit).await?;
            let mut execution = convert::execution(submitted.execution);
            if mode == SubmitMode::ValidateOnly {
                // There is nothing that the name would lead to.
                execution.name.clear();
            }
            let created = submitted.origin == Origin::Created;
            Ok(wire::SubmitExecutionResponse { execution: Some(execution), claim: submitted.claim, created })
        })
        .await
    }

    async fn watch_execution(
        &self,
        request: Request<wire::WatchExecutionRequest>,
    ) -> Answer<Self::WatchExecutionStream> {
        let (call, caller) = self.begin(Rpc::WatchExecution, request.metadata());
        call.answer_stream(async {
            let caller = caller?;
            let (name, cursor, options) = convert::watch(request.into_inner())?;
            note_target(&name.target);
            note_execution(&name.id);
            let target = self.0.targets.named(&caller, &name.target)?;
            let permit = self.0.watch_permit()?;
            let events = target.backend.watch(&caller.tenant, &name.id, &cursor, options).await?;
            let events = stream::events(events, permit, self.0.draining.clone(), self.0.metrics.clone());
            Ok(events.map_ok(|event| wire::WatchExecutionResponse { event: Some(event) }))
        })
        .await
    }

    async fn watch_executions(
        &self,
        request: Request<Streaming<wire::WatchExecutionsRequest>>,
    ) -> Answer<Self::WatchExecutionsStream> {
        let (call, caller) = self.begin(Rpc::WatchExecutions, request.metadata());
        call.answer_stream(async { Ok(watch_many::events(self.0.clone(), caller?, request.into_inner())) }).await
    }

    async fn get_execution(&self, request: Request<wire::GetExecutionRequest>) -> Answer<wire::GetExecutionResponse> {
        let (call, caller) = self.begin(Rpc::GetExecution, request.metadata());
        call.answer(async {
            let caller = caller?;
            let request = request.into_inner();
            let (name, view) = (convert::name(&request.name)?, convert::view(request.view)?);
            note_target(&name.target);
            note_execution(&name.id);
            let target = self.0.targets.named(&caller, &name.target)?;
            let execution = target.backend.get(&caller.tenant, &name.id, view).await?;
            Ok(wire::GetExecutionResponse { execution: Some(convert::execution(execution)) })
        })
        .await
    }

    async fn list_executions(
        &self,
        request: Request<wire::ListExecutionsRequest>,
    ) -> Answer<wire::ListExecutionsResponse> {
        let (call, caller) = self.begin(Rpc::ListExecutions, request.metadata());
        call.answer(async {
            let caller = caller?;
            let (selector, filter) = convert::list(request.into_inner())?;
            let target = self.0.targets.select(&caller, &selector)?;
            note_target(&target.name);
            let mut executions = target.backend.list(&caller.tenant, &filter).await?;
            let page = filter.limit - 1;
            let more = executions.len() > page;
            executions.truncate(page);
            let last = executions.last().filter(|_| more);
            Ok(wire::ListExecutionsResponse {
                next_page_token: last.map(|last| convert::next_page_token(&last.address.id)).unwrap_or_default(),
                executions: executions.into_iter().map(convert::execution).collect(),
            })
        })
        .await
    }

    async fn cancel_execution(
        &self,
        request: Request<wire::CancelExecutionRequest>,
    ) -> Answer<wire::CancelExecutionResponse> {
        let (call, caller) = self.begin(Rpc::CancelExecution, request.metadata());
        call.answer(async {
            let caller = caller?;
            let (name, cancel) = convert::cancel(request.into_inner(), &caller)?;
            note_target(&name.target);
            note_execution(&name.id);
            let target = self.0.targets.named(&caller, &name.target)?;
            let execution = target.backend.cancel(&caller.tenant, &name.id, cancel).await?;
            Ok(wire::CancelExecutionResponse { execution: Some(convert::execution(execution)) })
        })
        .await
    }

    async fn release_execution(
        &self,
        request: Request<wire::ReleaseExecutionRequest>,
    ) -> Answer<wire::ReleaseExecutionResponse> {
        let (call, caller) = self.begin(Rpc::ReleaseExecution, request.metadata());
        call.answer(async {
            let caller = caller?;
            let (name, claim) = convert::release(request.into_inner())?;
            note_target(&name.target);
            note_execution(&name.id);
            let target = self.0.targets.named(&caller, &name.target)?;
            let execution = target.backend.release(&caller.tenant, &name.id, claim.as_deref()).await?;
            Ok(wire::ReleaseExecutionResponse { execution: Some(convert::execution(execution)) })
        })
        .await
    }

    async fn list_targets(&self, request: Request<wire::ListTargetsRequest>) -> Answer<wire::ListTargetsResponse> {
        let (call, caller) = self.begin(Rpc::ListTargets, request.metadata());
        call.answer(async {
            let targets = self.0.targets.of(&caller?).map(convert::target).collect();
            Ok(wire::ListTargetsResponse { targets })
        })
        .await
    }

    async fn check_target(&self, request: Request<wire::CheckTargetRequest>) -> Answer<Self::CheckTargetStream> {
        let (call, caller) = self.begin(Rpc::CheckTarget, request.metadata());
        call.answer_stream(async {
            let caller = caller?;
            let selector = convert::selector(request.into_inner().target)?;
            let chain = check::chain(&caller, &self.0.targets, &selector)?;
            Ok(check::answers(chain, self.0.draining.clone()))
        })
        .await
    }

    async fn get_server_info(
        &self,
        request: Request<wire::GetServerInfoRequest>,
    ) -> Answer<wire::GetServerInfoResponse> {
        let (call, caller) = self.begin(Rpc::GetServerInfo, request.metadata());
        call.answer(async {
            let caller = caller?;
            let settings = &self.0.settings;
            let bytes = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
            Ok(wire::GetServerInfoResponse {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                instance: settings.instance.to_string(),
                features: super::FEATURES.iter().chain(&settings.features).map(|name| (*name).to_owned()).collect(),
                max_request_bytes: bytes(settings.limits.max_request_bytes),
                max_manifest_bytes: bytes(settings.limits.max_manifest_bytes),
                caller_subject: caller.subject,
                caller_tenant: caller.tenant.to_string(),
            })
        })
        .await
    }
}
