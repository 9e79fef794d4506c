#!/bin/bash
# Set up a host on Amazon Linux 2023. CloudFormation replaces the names in braces. This script contains no secrets.
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
# Keep containers with a bridge address from this host's credentials. Sandboxes have no network at all.
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
  /usr/local/bin/runsc install -- --network=none --oci-seccomp # without it, runsc ignores the seccomp profile
fi

systemctl daemon-reload
systemctl enable docker
systemctl restart docker

aws s3 cp --only-show-errors "s3://${ArtifactBucket}/${HostImageBundle}" - | docker load

# The agent runs as an unprivileged user with the socket's group. Access to the socket is root access to this host.
socket=/var/run/docker.sock
container_options=(--network host --volume "$socket:$socket" --user "900:$(stat -c %g "$socket")"
  --read-only --cap-drop ALL --security-opt no-new-privileges --env "AWS_DEFAULT_REGION=${AWS::Region}"
  --log-driver awslogs --log-opt "awslogs-group=${HostLogs}" --log-opt "awslogs-region=${AWS::Region}"
  --log-opt mode=non-blocking)

docker run --detach --name python-exec-agent --restart unless-stopped --stop-timeout 20 "${!container_options[@]}" \
  --log-opt "awslogs-stream=$HOSTNAME/agent" \
  --env "JOB_QUEUE_URL=${JobQueue}" \
  --env "RESULTS_QUEUE_URL=${ResultsQueue}" \
  --env "OCI_RUNTIME=$runtime" \
  --env "METRICS_NAMESPACE=${AWS::StackName}" \
  python-exec-agent

cat >/etc/systemd/system/python-exec-drain.service <<unit
[Unit]
Description=Drain this python-exec host when EC2 is about to terminate it
Requires=docker.service
After=docker.service

[Service]
ExecStart=/usr/bin/docker run --rm --name python-exec-drain ${!container_options[*]} \\
  --log-opt awslogs-stream=$HOSTNAME/drain --env HOST_GROUP=${AWS::StackName}-hosts \\
  python-exec-agent python3 -m executor_host.termination_watcher
ExecStop=/usr/bin/docker stop --time 5 python-exec-drain
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
unit
systemctl daemon-reload
systemctl enable --now python-exec-drain

# Put the host into service once its sandboxes have passed the isolation check. Auto Scaling replaces a host on which this script fails.
has_sandboxes() { # under load all sandboxes are in use
  curl -fs --max-time 5 http://127.0.0.1:9464/metrics |
    awk '/^python_exec_isolation_check_passed / { passed = $2 > 0 }
      /^python_exec_(warm_sandboxes|jobs_running)\{/ { split($1, name, "{"); sandboxes[name[2]] += $2 }
      END { for (runtime in sandboxes) { total++; ready += sandboxes[runtime] > 0 } exit !(passed && total && ready == total) }'
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
