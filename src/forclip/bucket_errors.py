"""Say in plain words what an error of an object store means."""

import os
import re

_SECRETS = re.compile(r"SECRET|TOKEN|_KEY$|PASSWORD|CREDENTIAL")  # in names of environment variables
_REASONS = {  # words in the errors of object stores, in the order in which they count
    "there is no such bucket": r"NoSuchBucket|NO_SUCH_BUCKET|bucket does not exist|ContainerNotFound",
    "there are no credentials in the environment": r"CredentialsNotLoaded|Failed to get \w+ credentials|token request",
    "the environment names no storage account; set AZURE_STORAGE_ACCOUNT_NAME": r"account name",
    "the credentials have expired": r"ExpiredToken|EXPIRED_TOKEN|TokenRefreshRequired",
    "the bucket is in another region; set AWS_REGION": (
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|301 Moved|AWS_REGION|wrong region"
    ),
    "access is denied to these credentials": (
        r"AccessDenied|ACCESS_DENIED|InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch"
        r"|SIGNATURE_DOES_NOT_MATCH|AuthenticationFailed|AuthorizationFailure|\b40[13] (Forbidden|Unauthorized)"
        r"|\bHTTP (status|response code):? 40[13]"
    ),
    "{endpoint} can't be reached": (
        r"NETWORK_CONNECTION|error sending request|builder error|dns error|timed out|TIMEOUT|Could not connect"
    ),
}
_PROVIDERS = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}


def endpoint_of(scheme: str) -> str | None:
    """Return the endpoint that the environment names for a scheme, None for the provider's own."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT") if scheme == "s3" else ()
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def reason_of(error: BaseException, scheme: str) -> str | None:
    """Say what an error of an object store means, None if it is another kind of error. scheme: of its URLs."""
    text = str(error)
    for reason, words in _REASONS.items():
        if re.search(words, text):
            endpoint = endpoint_of(scheme) or _PROVIDERS.get(scheme, f"the server of {scheme}://")
            return reason.format(endpoint=without_secrets(endpoint))
    return None


def without_secrets(text: str) -> str:
    """Return a text without the values of secret environment variables and without credentials in URLs."""
    for name, value in os.environ.items():
        if _SECRETS.search(name) and len(value) >= 8:
            text = text.replace(value, "…")
    return re.sub(r"://[^/@\s]+@", "://…@", text)
