#!/bin/bash
# Sets up a host on Amazon Linux 2023. CloudFormation fills in what is in braces; there is no secret in here.
set -euo pipefail

export AWS_DEFAULT_REGION="${AWS::Region}"
runtime="${OciRuntime}"

dnf install -y -q docker awscli-2

mkdir -p /etc/docker /etc/systemd/system/docker.service.d
cat >/etc/docker/daemon.json <<'json'
{
  "live-restore": true,
  "log-driver": "local",
  "log-opts": {"max-size": "10m", "max-file": "3"}
}
json
# A container with an address of its own never asks for this host's credentials; sandboxes have no network at all.
cat >/etc/systemd/system/docker.service.d/no-metadata.conf <<'unit'
[Service]
ExecStartPost=/bin/sh -c 'iptables -C DOCKER-USER -d 169.254.169.254 -j DROP || iptables -I DOCKER-USER -d 169.254.169.254 -j DROP'
unit

if [ "$runtime" = runsc ]; then
  release="https://storage.googleapis.com/gvisor/releases/release/${GvisorRelease}/$(uname -m)"
  cd "$(mktemp -d)"
  curl -fsS --retry 5 -O "$release/runsc" -O "$release/runsc.sha512"
  sha512sum --check --strict runsc.sha512
  install -m 0755 runsc /usr/local/bin/runsc
  /usr/local/bin/runsc install
fi

systemctl daemon-reload
systemctl enable docker
systemctl restart docker

aws s3 cp --only-show-errors "s3://${ArtifactBucket}/${HostImageBundle}" - | docker load

# The agent's user is nobody of this host but for the socket's group. Who has the socket is root: no sandbox sees it.
socket=/var/run/docker.sock
confined=(--network host --volume "$socket:$socket" --user "900:$(stat -c %g "$socket")"
  --read-only --cap-drop ALL --security-opt no-new-privileges --env "AWS_DEFAULT_REGION=${AWS::Region}"
  --log-driver awslogs --log-opt "awslogs-group=${HostLogs}" --log-opt "awslogs-region=${AWS::Region}"
  --log-opt mode=non-blocking)

docker run --detach --name python-exec-agent --restart unless-stopped --stop-timeout 20 "${!confined[@]}" \
  --log-opt "awslogs-stream=$HOSTNAME/agent" \
  --env "JOB_QUEUE_URL=${JobQueue}" \
  --env "RESULTS_QUEUE_URL=${ResultsQueue}" \
  --env "OCI_RUNTIME=$runtime" \
  --env "METRICS_NAMESPACE=${AWS::StackName}" \
  python-exec-agent

cat >/etc/systemd/system/python-exec-notices.service <<unit
[Unit]
Description=python-exec: drains this host when EC2 takes it away
Requires=docker.service
After=docker.service

[Service]
ExecStart=/usr/bin/docker run --rm --name python-exec-notices ${!confined[*]} \\
  --log-opt awslogs-stream=$HOSTNAME/notices --env HOST_GROUP=${AWS::StackName}-hosts \\
  python-exec-agent python3 -m executor_host.termination_watcher
ExecStop=/usr/bin/docker stop --time 5 python-exec-notices
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
unit
systemctl daemon-reload
systemctl enable --now python-exec-notices

# Only now does the group count this host as in service. One on which anything of this fails is given up and replaced.
has_sandboxes() { # under load all of them are in use
  curl -fs --max-time 5 http://127.0.0.1:9464/metrics |
    awk '/^python_exec_(warm_sandboxes|jobs_running) / && $2 > 0 { found = 1 } END { exit !found }'
}
tries=150
until has_sandboxes; do
  ((--tries)) || exit 1
  sleep 2
done
metadata=http://169.254.169.254/latest
token="$(curl -fsS --retry 5 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/api/token")"
instance="$(curl -fsS --retry 5 -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/instance-id")"
aws autoscaling complete-lifecycle-action --lifecycle-hook-name wait-for-ready --lifecycle-action-result CONTINUE \
  --auto-scaling-group-name "${AWS::StackName}-hosts" --instance-id "$instance"
