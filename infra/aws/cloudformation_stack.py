"""One CloudFormation stack: change sets, deletion and progress. Used by deploy.py."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from botocore.exceptions import ClientError, WaiterError
from msgspec import Struct

from infra import progress
from infra.aws.account_setup import Client
from infra.errors import CommandError

CAPABILITIES: Final = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
NO_CHANGE_REASONS: Final = ("didn't contain changes", "No updates are to be performed")
SUCCESS_STATUSES: Final = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}
FAILED_CREATE_STATUSES: Final = {"REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"}  # can only be deleted
STUCK_STATUSES: Final = {
    "DELETE_FAILED": "Fix the cause in its events, then run `make destroy`.",
    "UPDATE_ROLLBACK_FAILED": "Fix the cause in its events, then run `aws cloudformation continue-update-rollback`.",
}


class Stack(Struct, frozen=True):
    """A stack by name, which need not exist."""

    client: Client
    name: str
    poll_s: float

    def status(self, stack_id: str | None = None) -> str | None:
        """Return CloudFormation's status of the stack, None if it does not exist. A deleted one needs its id."""
        try:
            return str(self._describe(stack_id)["StackStatus"])
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            return None

    def prepare_for_update(self) -> bool:
        """Return whether the stack exists, after deleting one that was never complete. Raises CommandError."""
        status = self.status()
        if status in FAILED_CREATE_STATUSES:
            progress.report(f"{self.name} is in {status}: its creation failed. Deleting it first.")
            self.delete()
            return False
        if status in STUCK_STATUSES:
            raise CommandError(f"{self.name} is in {status}. {STUCK_STATUSES[status]}")
        if status is not None and status.endswith("_IN_PROGRESS"):
            raise CommandError(f"{self.name} is in {status}. Wait until that ends, then deploy.")
        return status is not None

    def parameters(self) -> dict[str, str]:
        """Return the current parameters of an existing stack."""
        parameters = self._describe().get("Parameters", [])
        return {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in parameters}

    def outputs(self) -> dict[str, str]:
        """Return the outputs of an existing stack."""
        return {output["OutputKey"]: output["OutputValue"] for output in self._describe().get("Outputs", [])}

    def apply(
        self, template_url: str, *, is_update: bool, parameters: Mapping[str, str], unchanged: Sequence[str], stage: str
    ) -> None:
        """Create or update the stack and wait. Parameters in `unchanged` keep their values. Raises CommandError."""
        change_set = {"StackName": self.name, "ChangeSetName": f"deploy-{time.time_ns()}"}
        self.client.create_change_set(
            **change_set,
            ChangeSetType="UPDATE" if is_update else "CREATE",
            TemplateURL=template_url,
            Capabilities=CAPABILITIES,
            Parameters=[
                *({"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()),
                *({"ParameterKey": key, "UsePreviousValue": True} for key in unchanged),
            ],
            Tags=[{"Key": "python-exec", "Value": stage}],
        )
        if not self._has_changes(change_set):
            self.client.delete_change_set(**change_set)
            progress.report(f"{self.name} has no changes.")
            return
        earlier_events = self._event_ids(self.name)
        # A failed creation deletes its tables too: they are empty, and the next attempt needs their names.
        self.client.execute_change_set(**change_set, RetainExceptOnCreate=True)
        self._wait(self.name, earlier_events=earlier_events)

    def delete(self) -> None:
        """Delete an existing stack and wait until it is gone. Raises CommandError."""
        stack_id = self._describe()["StackId"]  # a deleted stack has no name
        earlier_events = self._event_ids(stack_id)
        self.client.delete_stack(StackName=self.name)
        self._wait(stack_id, earlier_events=earlier_events)

    def _describe(self, stack_id: str | None = None) -> dict[str, Any]:
        description: dict[str, Any] = self.client.describe_stacks(StackName=stack_id or self.name)["Stacks"][0]
        return description

    def _has_changes(self, change_set: Mapping[str, str]) -> bool:
        # A change set without changes fails; one that only changes outputs succeeds and lists no resource.
        waiter = self.client.get_waiter("change_set_create_complete")
        try:
            waiter.wait(**change_set, WaiterConfig={"Delay": self.poll_s})
        except WaiterError as error:
            reason = error.last_response.get("StatusReason", str(error))
            if any(text in reason for text in NO_CHANGE_REASONS):
                return False
            raise CommandError(f"CloudFormation rejected the change: {reason}") from error
        return True

    def _events(self, stack: str) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("describe_stack_events").paginate(StackName=stack)
        return [event for page in pages for event in page["StackEvents"]][::-1]

    def _event_ids(self, stack: str) -> set[str]:
        return {event["EventId"] for event in self._events(stack)}

    def _wait(self, stack: str, *, earlier_events: set[str]) -> None:
        reported = set(earlier_events)
        while True:
            status = self.status(stack)
            for event in self._events(stack):
                if event["EventId"] not in reported:
                    reported.add(event["EventId"])
                    details = (event.get("LogicalResourceId", ""), event.get("ResourceStatusReason", ""))
                    progress.report(f"{event.get('ResourceStatus', ''):28} {' '.join(details)}".rstrip())
            has_started = reported != earlier_events  # until the first event the status is the previous one
            if status == "DELETE_COMPLETE" or (has_started and status and not status.endswith("_IN_PROGRESS")):
                break
            time.sleep(self.poll_s)
        if status not in SUCCESS_STATUSES:
            raise CommandError(f"{self.name} is in {status}; the events above name the cause.")
