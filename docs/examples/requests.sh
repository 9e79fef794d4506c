#!/bin/sh
# Send requests to python-exec with curl. URL and API_KEY must be set.
set -eu

send() {
    curl -sS -H "X-Api-Key: $API_KEY" "$@"
    echo
}

echo "A program with input:"
send "$URL" -H 'Content-Type: application/json' -d '{"code": "print(input().upper())", "input": "hello"}'

echo "A program that fails returns 200; status, exit_code and error describe its end:"
send "$URL" -H 'Content-Type: application/json' -d '{"code": "1 / 0"}'

echo "An asynchronous job returns 202. Poll Location until the response is 200:"
location=$(curl -sS -o /dev/null -D - -H "X-Api-Key: $API_KEY" -H 'Content-Type: application/json' -H 'Prefer: respond-async' \
    "$URL" -d '{"code": "print(sum(range(1000)))"}' | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
origin=$(echo "$URL" | sed 's|^\(https*://[^/]*\).*|\1|')
while [ "$(curl -sS -o /dev/null -w '%{http_code}' -H "X-Api-Key: $API_KEY" "$origin$location")" = 202 ]; do sleep 1; done
send "$origin$location"

echo "What is left of the quota:"
send "${URL%/}/usage"
