"""One CloudFormation stack: change sets, deletion and progress. Used by deploy.py."""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from botocore.exceptions import ClientError, WaiterError
from msgspec import Struct

from infra import progress
from infra.aws.account_setup import Client, ClientFactory
from infra.errors import CommandError

CAPABILITIES: Final = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
NO_CHANGE_REASONS: Final = ("didn't contain changes", "No updates are to be performed")
SUCCESS_STATUSES: Final = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}
FAILED_CREATE_STATUSES: Final = {"REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"}  # can only be deleted
STAGE: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")  # part of the names of queues, roles and tables
POLL_S: Final = 3.0
ROLE_SETTING: Final = "CLOUDFORMATION_ROLE_ARN"  # with which CloudFormation acts, instead of the caller's permissions
STUCK_STATUSES: Final = {
    "DELETE_FAILED": "Fix the cause in its events, then run `make destroy`.",
    "UPDATE_ROLLBACK_FAILED": "Fix the cause in its events, then run `aws cloudformation continue-update-rollback`.",
}


class Stack(Struct, frozen=True):
    """The stack of a stage, which need not exist."""

    client: Client
    stage: str
    plan_only: bool = False  # list the changes of an update, and make none

    @property
    def name(self) -> str:
        """Return CloudFormation's name of the stack."""
        return stack_name(self.stage)

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

    def template(self) -> dict[str, Any]:
        """Return the template of an existing stack, as it was uploaded."""
        response = self.client.get_template(StackName=self.name, TemplateStage="Original")
        template: dict[str, Any] = response["TemplateBody"]
        return template

    def outputs(self) -> dict[str, str]:
        """Return the outputs of an existing stack."""
        return {output["OutputKey"]: output["OutputValue"] for output in self._describe().get("Outputs", [])}

    def apply(
        self,
        template: Mapping[str, object],
        *,
        is_update: bool,
        parameters: Mapping[str, str],
        unchanged: Sequence[str],
    ) -> None:
        """Create or update the stack and wait. Raises CommandError.

        `template` is TemplateURL or UsePreviousTemplate; parameters in `unchanged` keep their values.
        """
        if self.plan_only and not is_update:
            raise CommandError(f"{self.name} does not exist, so everything in its template would be created.")
        change_set = {"StackName": self.name, "ChangeSetName": f"deploy-{time.time_ns()}"}
        self.client.create_change_set(
            **change_set,
            ChangeSetType="UPDATE" if is_update else "CREATE",
            **template,
            Capabilities=CAPABILITIES,
            Parameters=[
                *({"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()),
                *({"ParameterKey": key, "UsePreviousValue": True} for key in unchanged),
            ],
            Tags=[{"Key": "python-exec", "Value": self.stage}],
            **({"RoleARN": role} if (role := os.environ.get(ROLE_SETTING)) else {}),
        )
        if not self._has_changes(change_set):
            self.client.delete_change_set(**change_set)
            progress.report(f"{self.name} has no changes.")
            return
        self._report_changes(change_set)
        if self.plan_only:
            self.client.delete_change_set(**change_set)
            progress.report(f"Nothing was changed in {self.name}.")
            return
        last_event = self._last_event(self.name)
        # A failed creation deletes its tables too: they are empty, and the next attempt needs their names.
        self.client.execute_change_set(**change_set, RetainExceptOnCreate=True)
        self._wait(self.name, last_event=last_event)

    def delete(self) -> None:
        """Delete an existing stack and wait until it is gone. Raises CommandError."""
        stack_id = self._describe()["StackId"]  # a deleted stack has no name
        last_event = self._last_event(stack_id)
        self.client.delete_stack(StackName=self.name)
        self._wait(stack_id, last_event=last_event)

    def _describe(self, stack_id: str | None = None) -> dict[str, Any]:
        description: dict[str, Any] = self.client.describe_stacks(StackName=stack_id or self.name)["Stacks"][0]
        return description

    def _has_changes(self, change_set: Mapping[str, str]) -> bool:
        # A change set without changes fails; one that only changes outputs succeeds and lists no resource.
        waiter = self.client.get_waiter("change_set_create_complete")
        try:
            waiter.wait(**change_set, WaiterConfig={"Delay": POLL_S})
        except WaiterError as error:
            reason = error.last_response.get("StatusReason", str(error))
            if any(text in reason for text in NO_CHANGE_REASONS):
                return False
            raise CommandError(f"CloudFormation rejected the change: {reason}") from error
        return True

    def _report_changes(self, change_set: Mapping[str, str]) -> None:
        pages = self.client.get_paginator("describe_change_set").paginate(**change_set)
        for change in (each["ResourceChange"] for page in pages for each in page.get("Changes", ())):
            replaced = " (replaced)" if change.get("Replacement") == "True" else ""
            progress.report(f"{change['Action']:28} {change['LogicalResourceId']}{replaced}")

    def _events_since(self, stack: str, last_event: str | None) -> list[dict[str, Any]]:
        """Return the events after one of them, the oldest first."""
        return list(takewhile(lambda event: event["EventId"] != last_event, self._newest_events(stack)))[::-1]

    def _last_event(self, stack: str) -> str | None:
        return next((str(event["EventId"]) for event in self._newest_events(stack)), None)

    def _newest_events(self, stack: str) -> Iterator[dict[str, Any]]:
        """Yield all events, the newest first."""
        for page in self.client.get_paginator("describe_stack_events").paginate(StackName=stack):
            yield from page["StackEvents"]

    def _wait(self, stack: str, *, last_event: str | None) -> None:
        has_started = False  # until the first event the status is the previous one
        while True:
            status = self.status(stack)
            for event in self._events_since(stack, last_event):
                has_started, last_event = True, event["EventId"]
                details = (event.get("LogicalResourceId", ""), event.get("ResourceStatusReason", ""))
                progress.report(f"{event.get('ResourceStatus', ''):28} {' '.join(details)}".rstrip())
            if status == "DELETE_COMPLETE" or (has_started and status and not status.endswith("_IN_PROGRESS")):
                break
            time.sleep(POLL_S)
        if status not in SUCCESS_STATUSES:
            raise CommandError(f"{self.name} is in {status}; the events above name the cause.")


def stack_name(stage: str) -> str:
    """Return the name of a stage's stack. Raises CommandError."""
    if not STAGE.fullmatch(stage):
        raise CommandError("STAGE must be 1 to 20 lowercase letters, digits and hyphens, for example STAGE=prod.")
    return f"python-exec-{stage}"


def existing_stack(clients: ClientFactory, stage: str, *, plan_only: bool = False) -> Stack:
    """Return the stack of a stage, ready for an update. Raises CommandError."""
    stack = Stack(clients("cloudformation"), stage, plan_only=plan_only)
    if not stack.prepare_for_update():
        raise CommandError(f"{stack.name} does not exist.")
    return stack
