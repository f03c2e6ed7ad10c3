"""One exception for each failure class, and the errors of the broker's calls."""

from __future__ import annotations

import pickle

import pytest
import scripted as s

from podbroker import FailureClass
from podbroker import exceptions as errors
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import (
    AirflowException,
    PodLaunchFailedException,
    PodLaunchTimeoutException,
    PodNotFoundException,
)
from podbroker.airflow.failure import BY_CLASS, exception_of_error, exception_of_outcome


def raised(outcome):
    return exception_of_outcome(outcome, name="pod-1", base_container="base", execution_name="e")


@pytest.mark.parametrize("failure_class", list(FailureClass))
def test_each_failure_class_has_its_exception(failure_class):
    error = raised(s.failed(failure_class))
    assert type(error) is BY_CLASS[failure_class]
    assert isinstance(error, AirflowException)
    assert str(error).startswith("Pod pod-1 returned a failure.")
    assert "It did not work." in str(error)


@pytest.mark.parametrize(
    ("failure_class", "upstream"),
    [
        (FailureClass.START_DEADLINE, PodLaunchTimeoutException),
        (FailureClass.UNSCHEDULABLE, PodLaunchTimeoutException),
        (FailureClass.IMAGE_PULL, PodLaunchFailedException),
        (FailureClass.INVALID_SPEC, PodLaunchFailedException),
        (FailureClass.POD_DELETED, PodNotFoundException),
    ],
)
def test_what_upstream_has_a_class_for_is_that_class(failure_class, upstream):
    assert isinstance(raised(s.failed(failure_class)), upstream)


@pytest.mark.parametrize(
    "failure_class",
    [FailureClass.EVICTED, FailureClass.PREEMPTED, FailureClass.SPOT_INTERRUPTED, FailureClass.NODE_LOST],
)
def test_a_retry_rule_can_ask_for_disruptions(failure_class):
    assert isinstance(raised(s.failed(failure_class)), ex.RemotePodDisrupted)


def test_out_of_memory_is_a_failure_with_an_exit_code():
    error = raised(s.failed(FailureClass.OUT_OF_MEMORY, exit_code=137))
    assert isinstance(error, ex.RemotePodFailed)
    assert error.exit_code == 137


@pytest.mark.parametrize(
    ("error", "made"),
    [
        (errors.InvalidSpecError("x", reason="INVALID_SPEC"), ex.RemotePodInvalidSpec),
        (errors.InvalidRequestError("x", reason="INVALID_REQUEST"), ex.RemotePodInvalidSpec),
        (errors.UnsupportedError("x"), ex.RemotePodInvalidSpec),
        (errors.NotAuthenticatedError("x"), ex.RemotePodNotAllowed),
        (errors.NotAllowedError("x"), ex.RemotePodNotAllowed),
        (errors.NotFoundError("x", reason="NO_SUCH_TARGET"), ex.RemotePodRefused),
        (errors.NotFoundError("x", reason="NO_SUCH_EXECUTION"), ex.RemotePodLost),
        (errors.ExpiredError("x", reason="EXPIRED"), ex.RemotePodLost),
        (errors.RefusedError("x", reason="ADMISSION_DENIED"), ex.RemotePodAdmissionDenied),
        (errors.RefusedError("x", reason="FORBIDDEN_BY_CLUSTER"), ex.RemotePodRefused),
        (errors.QuotaError("x", reason="QUOTA"), ex.RemotePodQuotaExceeded),
        (errors.CredentialsError("x"), ex.RemotePodCredentialsRefused),
        (errors.UnavailableError("x"), ex.RemotePodBrokerUnavailable),
        (errors.BrokerError("x"), ex.RemotePodBrokerFault),
    ],
)
def test_each_error_of_a_call_has_its_exception(error, made):
    assert type(exception_of_error(error, doing="It was tried")) is made
    assert str(exception_of_error(error, doing="It was tried")) == "It was tried: x"


def test_every_error_of_the_client_is_mapped():
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PodbrokerError)
    ]
    for kind in set(kinds) - {errors.PodbrokerError, errors.BrokerError}:
        if kind is errors.ConflictError:  # followed, never raised
            continue
        assert type(exception_of_error(kind("x"), doing="d")) is not ex.RemotePodBrokerFault


@pytest.mark.parametrize("name", ex.__all__)
def test_every_exception_survives_a_pickle_and_airflows_own_serialisation(name):
    error = getattr(ex, name)("what happened")
    error.execution_name = "e"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert (type(again), str(again), again.execution_name) == (type(error), "what happened", "e")
    path, arguments, keywords = error.serialize()
    assert (path, arguments, keywords) == (f"podbroker.airflow.exceptions.{name}", ("what happened",), {})
