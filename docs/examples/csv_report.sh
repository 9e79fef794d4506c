#!/bin/sh
# Send a CSV file with a program, and print the file that the program writes. URL and API_KEY must be set.
set -eu

csv=$(printf 'region,amount\nnorth,10\nsouth,5\nnorth,7\n' | base64 | tr -d '\n')
response=$(curl -sS "$URL" -H "X-Api-Key: $API_KEY" -H 'Content-Type: application/json' -d @- <<END
{
  "code": "import collections, csv\ntotals = collections.Counter()\nfor row in csv.DictReader(open('sales.csv')):\n    totals[row['region']] += int(row['amount'])\nwith open('totals.csv', 'w') as file:\n    csv.writer(file, lineterminator='\\\\n').writerows(totals.most_common())",
  "files": [{"path": "sales.csv", "content_base64": "$csv"}],
  "artifacts": ["*.csv"]
}
END
)
echo "$response" | sed -n 's/.*"path":"totals.csv","size":[0-9]*,"content_base64":"\([^"]*\)".*/\1/p' | base64 -d
