"""STS: GetCallerIdentity, AssumeRole, AssumeRoleWithWebIdentity.

A role in the configuration has `trust`: `principals` (ARNs of roles, users, or `...:root`), and optionally
`external_id`, `tag_session`, `set_source_identity`, `web_subjects`. Without `tag_session` a session with tags is
refused, also one whose caller's session has transitive tags. `max_seconds` limits what may be asked for, `lifetime`
cuts short what is given, and `token_size` sets the characters of the session token.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from .refusals import Answer, Refused, json_answer, request_id, sts_answer
from .signatures import Caller, Request, identify

if TYPE_CHECKING:
    from .state import Session, State

#: Seconds; of a role that was assumed with another role's session, and of any role unless it says more.
_CHAINED: Final = 3600

_MIN_SECONDS: Final = 900
_SESSION_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}")
#: Characters of an inline session policy.
_MAX_POLICY: Final = 2048


def action_of(request: Request) -> str:
    """What is asked for."""
    return request.form.get("Action", "")


def answer(request: Request, state: State, call: dict[str, Any]) -> Answer:
    """Answers one request; what happened is added to `call`."""
    action = action_of(request)
    if action == "AssumeRoleWithWebIdentity":
        return _assume_with_web_identity(request.form, state, call)
    caller = identify(request, service="sts", state=state)
    call |= {"caller": caller.arn, "region": caller.region}
    if caller.region in state.config.get("regions_without_sts", []):
        raise Refused(
            "RegionDisabledException",
            f"STS is not activated in this region for account:{caller.account}. Your account administrator can "
            "activate STS in this region using the IAM Console.",
        )
    if action == "GetCallerIdentity":
        return _caller_identity(caller, as_json=wants_json(request))
    if action == "AssumeRole":
        return _assume(request.form, caller, state, call)
    raise Refused("InvalidAction", f"Could not find operation {action} for version 2011-06-15", status=400)


def wants_json(request: Request) -> bool:
    """The query protocol answers in XML unless it is told otherwise."""
    return "json" in request.headers.get("accept", "")


def _caller_identity(caller: Caller, *, as_json: bool) -> Answer:
    if as_json:
        result = {"Account": caller.account, "Arn": caller.arn, "UserId": caller.user_id}
        body = {"GetCallerIdentityResult": result, "ResponseMetadata": {"RequestId": request_id()}}
        return json_answer({"GetCallerIdentityResponse": body})
    return sts_answer(
        "GetCallerIdentity",
        f"<Arn>{escape(caller.arn)}</Arn><UserId>{caller.user_id}</UserId><Account>{caller.account}</Account>",
    )


def _assume(form: dict[str, str], caller: Caller, state: State, call: dict[str, Any]) -> Answer:
    role_arn, session_name = form.get("RoleArn", ""), form.get("RoleSessionName", "")
    tags, transitive = _tags(form), _list(form, "TransitiveTagKeys.member.")
    seconds = int(form.get("DurationSeconds", _CHAINED))
    call |= {
        "role": role_arn,
        "session_name": session_name,
        "seconds": seconds,
        "external_id": form.get("ExternalId"),
        "source_identity": form.get("SourceIdentity"),
        "tags": tags,
        "policy": form.get("Policy"),
    }
    _check_input(form, session_name, seconds)
    role = state.config.get("roles", {}).get(role_arn, {"trust": {}})
    trust = role["trust"]
    inherited = {}
    if caller.session is not None:
        inherited = {key: caller.session.tags[key] for key in caller.session.transitive}
    source_identity = form.get("SourceIdentity") or (caller.session.source_identity if caller.session else None)

    def deny(action: str) -> Refused:
        return Refused(
            "AccessDenied", f"User: {caller.arn} is not authorized to perform: {action} on resource: {role_arn}"
        )

    if not caller.principals & set(trust.get("principals", [])):
        raise deny("sts:AssumeRole")
    if trust.get("external_id") not in (None, form.get("ExternalId")):
        raise deny("sts:AssumeRole")
    if (tags or inherited) and not trust.get("tag_session"):
        raise deny("sts:TagSession")
    if source_identity and not trust.get("set_source_identity"):
        raise deny("sts:SetSourceIdentity")
    if caller.session is not None and seconds > _CHAINED:
        text = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
        raise Refused("ValidationError", text, status=400)
    if seconds > role.get("max_seconds", _CHAINED):
        text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        raise Refused("ValidationError", text, status=400)
    session = _open(
        state,
        role_arn,
        role,
        session_name,
        seconds,
        policy=form.get("Policy"),
        tags={**inherited, **tags},
        transitive=[*inherited, *transitive],
        source_identity=source_identity,
    )
    return sts_answer("AssumeRole", _session_xml(session, source_identity))


def _assume_with_web_identity(form: dict[str, str], state: State, call: dict[str, Any]) -> Answer:
    role_arn, session_name = form.get("RoleArn", ""), form.get("RoleSessionName", "")
    seconds = int(form.get("DurationSeconds", _CHAINED))
    call |= {"role": role_arn, "session_name": session_name, "seconds": seconds}
    _check_input(form, session_name, seconds)
    subject = state.config.get("web_identities", {}).get(form.get("WebIdentityToken", ""))
    if subject is None:
        text = "The web identity token that was passed could not be validated by AWS"
        raise Refused("InvalidIdentityToken", text, status=400)
    role = state.config.get("roles", {}).get(role_arn, {"trust": {}})
    if subject not in role["trust"].get("web_subjects", []):
        raise Refused("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
    session = _open(state, role_arn, role, session_name, seconds, policy=form.get("Policy"))
    extra = f"<SubjectFromWebIdentityToken>{escape(subject)}</SubjectFromWebIdentityToken>"
    return sts_answer("AssumeRoleWithWebIdentity", _session_xml(session, None) + extra)


def _check_input(form: dict[str, str], session_name: str, seconds: int) -> None:
    """Limits of https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html."""
    problem = None
    if not _SESSION_NAME.fullmatch(session_name):
        problem = f"Value '{session_name}' at 'roleSessionName' failed to satisfy constraint"
    elif not _MIN_SECONDS <= seconds <= 12 * 3600:
        problem = f"Value '{seconds}' at 'durationSeconds' failed to satisfy constraint"
    elif len(form.get("Policy", "")) > _MAX_POLICY:
        problem = "Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to 2048"
    if problem is not None:
        raise Refused("ValidationError", f"1 validation error detected: {problem}", status=400)
    if "Policy" in form:
        try:
            json.loads(form["Policy"])
        except ValueError:
            text = "The policy is not in the valid JSON format."
            raise Refused("MalformedPolicyDocument", text, status=400) from None


def _open(
    state: State,
    role_arn: str,
    role: dict[str, Any],
    session_name: str,
    seconds: int,
    **more: Any,  # noqa: ANN401
) -> Session:
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[1]
    # A role's id is its own: a role that is made anew under the old name has another.
    role_id = role.get("id") or "AROA" + hashlib.sha256(role_arn.encode()).hexdigest()[:16].upper()
    # The session's ARN has no path of the role.
    return state.open_session(
        size=role.get("token_size"),
        arn=f"arn:aws:sts::{account}:assumed-role/{name}/{session_name}",
        role=role_arn,
        account=account,
        user_id=f"{role_id}:{session_name}",
        expires=state.now().timestamp() + min(seconds, role.get("lifetime", seconds)),
        **more,
    )


def _session_xml(session: Session, source_identity: str | None) -> str:
    expires = datetime.datetime.fromtimestamp(session.expires, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    source = f"<SourceIdentity>{escape(source_identity)}</SourceIdentity>" if source_identity else ""
    packed = (
        f"<PackedPolicySize>{len(session.policy) * 100 // _MAX_POLICY}</PackedPolicySize>" if session.policy else ""
    )
    return (
        f"<Credentials><AccessKeyId>{session.access_key}</AccessKeyId>"
        f"<SecretAccessKey>{escape(session.secret)}</SecretAccessKey>"
        f"<SessionToken>{escape(session.token)}</SessionToken><Expiration>{expires}</Expiration></Credentials>"
        f"<AssumedRoleUser><AssumedRoleId>{session.user_id}</AssumedRoleId><Arn>{escape(session.arn)}</Arn>"
        f"</AssumedRoleUser>{packed}{source}"
    )


def _tags(form: dict[str, str]) -> dict[str, str]:
    keys = [key for key in form if re.fullmatch(r"Tags\.member\.\d+\.Key", key)]
    return {form[key]: form.get(key.removesuffix("Key") + "Value", "") for key in keys}


def _list(form: dict[str, str], prefix: str) -> list[str]:
    return [value for key, value in form.items() if key.startswith(prefix)]
