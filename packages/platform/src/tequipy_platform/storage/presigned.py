"""Presigned URLs of S3: AWS Signature Version 4 in the query, without a request.

obstore signs too, but cannot add the parameters that set the headers of the response.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlsplit

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


def presign_get(
    url: str,
    parameters: Mapping[str, str],
    *,
    access_key_id: str,
    secret_access_key: str,
    region: str,
    now: datetime,
    seconds: int,
) -> str:
    """Return the URL with the parameters and a signature that is valid for GET until `seconds` after `now`."""
    parts = urlsplit(url)
    date, time = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{date}/{region}/s3/aws4_request"
    query = _encode(
        {
            **parameters,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{access_key_id}/{scope}",
            "X-Amz-Date": time,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        }
    )
    path = quote(parts.path)
    request = f"GET\n{path}\n{query}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"{_ALGORITHM}\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret_access_key}".encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{parts.scheme}://{parts.netloc}{path}?{query}&X-Amz-Signature={signature}"


def _encode(parameters: Mapping[str, str]) -> str:
    """Return the canonical query: sorted by encoded name, all but unreserved characters encoded."""
    encoded = {quote(name, safe=""): quote(value, safe="") for name, value in parameters.items()}
    return "&".join(f"{name}={encoded[name]}" for name in sorted(encoded))
