"""The bucket of an account and region for the code, the templates and the host images of all its stages."""

import hashlib
import io
from pathlib import Path
from typing import BinaryIO, Final

from botocore.exceptions import ClientError
from msgspec import Struct

from infra.aws.account_setup import Client, ClientFactory
from infra.errors import CommandError

PUBLIC_ACCESS_BLOCKS: Final = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


class ArtifactBucket(Struct, frozen=True):
    """A private, encrypted bucket. Each call names the account that must own it, or fails (S3 condition)."""

    s3: Client
    name: str
    account: str

    def ensure(self) -> None:
        """Create the bucket unless it exists, and set its encryption and privacy. Raises CommandError."""
        try:
            self.s3.head_bucket(**self._bucket)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "403":
                raise CommandError(
                    f"{self.name} belongs to another account, or these credentials may not use it."
                ) from error
            if code not in {"404", "NoSuchBucket"}:
                raise
            self._create()
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        self.s3.put_bucket_encryption(**self._bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
        blocks = dict.fromkeys(PUBLIC_ACCESS_BLOCKS, True)
        self.s3.put_public_access_block(**self._bucket, PublicAccessBlockConfiguration=blocks)

    def upload_content(self, content: bytes, *, suffix: str) -> str:
        """Upload content under its hash unless the object exists, and return the key."""
        key = f"{hashlib.sha256(content).hexdigest()}/{suffix}"
        self.upload(key, io.BytesIO(content))
        return key

    def upload_bundle(self, bundle: Path) -> str:
        """Upload the images of the hosts under their hash, which user-data.sh verifies, and return the key.

        The name of the file includes a hash of the sources. If a bundle of the same sources exists, it is kept: a
        rebuilt one has another hash and would replace all hosts for nothing.
        """
        prefix = f"hosts/{bundle.name.removesuffix('.tar.gz')}/"
        for earlier in self.s3.list_objects_v2(**self._bucket, Prefix=prefix, MaxKeys=1).get("Contents", ()):
            return str(earlier["Key"])
        with bundle.open("rb") as file:
            key = f"{prefix}{hashlib.file_digest(file, 'sha256').hexdigest()}.tar.gz"
            file.seek(0)
            self.upload(key, file)
        return key

    def upload(self, key: str, file: BinaryIO) -> None:
        """Upload a file, whose key must include a hash of its content, unless the object exists."""
        try:
            self.s3.head_object(**self._bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            checks = {"ExpectedBucketOwner": self.account, "ChecksumAlgorithm": "SHA256"}
            self.s3.upload_fileobj(file, self.name, key, ExtraArgs=checks)

    def put(self, key: str, content: bytes) -> None:
        """Write a small object, whatever its key."""
        self.s3.put_object(**self._bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256")

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        content: bytes = self.s3.get_object(**self._bucket, Key=key)["Body"].read()
        return content

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of all objects with a prefix, in alphabetical order."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(**self._bucket, Prefix=prefix)
        return [str(each["Key"]) for page in pages for each in page.get("Contents", ())]

    def url(self, key: str) -> str:
        """Return the URL of an object."""
        return f"https://{self.name}.s3.{self.s3.meta.region_name}.amazonaws.com/{key}"

    @property
    def _bucket(self) -> dict[str, str]:
        return {"Bucket": self.name, "ExpectedBucketOwner": self.account}

    def _create(self) -> None:
        region = self.s3.meta.region_name
        location = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
        self.s3.create_bucket(Bucket=self.name, BucketNamespace="account-regional", **location)


def artifact_bucket(clients: ClientFactory) -> ArtifactBucket:
    """Return the bucket of the account and region of these clients, which need not exist.

    Its name is one that only this account can use:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/gpbucketnamespaces.html
    """
    s3, account = clients("s3"), clients("sts").get_caller_identity()["Account"]
    return ArtifactBucket(s3, name=f"python-exec-artifacts-{account}-{s3.meta.region_name}-an", account=account)
