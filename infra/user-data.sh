#!/bin/bash
# Set up a host on Amazon Linux 2023. CloudFormation replaces the names in braces. This script contains no secrets.
set -euo pipefail

export AWS_DEFAULT_REGION="${AWS::Region}"
runtime="${OciRuntime}"

complete_launch() { # CONTINUE puts this host into service, ABANDON replaces it
  local metadata=http://169.254.169.254/latest token instance
  token="$(curl -fsS --retry 5 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/api/token")"
  instance="$(curl -fsS --retry 5 -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/instance-id")"
  timeout 60 aws autoscaling complete-lifecycle-action --lifecycle-hook-name wait-for-ready --lifecycle-action-result "$1" \
    --auto-scaling-group-name "${AWS::StackName}-hosts" --instance-id "$instance"
}

ship_boot_log() { # to the stream HOST/boot
  local events
  events="$(tail -n 100 /var/log/cloud-init-output.log | python3 -c 'import json, sys, time
now = int(time.time() * 1000)
lines = [line.rstrip() for line in sys.stdin] + sys.argv[1:]
print(json.dumps([{"timestamp": now, "message": line[:1000]} for line in lines if line]))' "$1")"
  timeout 60 aws logs create-log-stream --log-group-name "${HostLogs}" --log-stream-name "$HOSTNAME/boot"
  timeout 60 aws logs put-log-events --log-group-name "${HostLogs}" --log-stream-name "$HOSTNAME/boot" --log-events "$events"
}

step="start"
replace_failed_host() { # at once, instead of when the launch hook ends; without a route to AWS, by shutting down
  local code=$?
  ((code)) || return 0
  set +e
  echo "host_setup_failed: $step (exit code $code)" | tee /dev/console
  ship_boot_log "host_setup_failed: $step (exit code $code)"
  complete_launch ABANDON
  shutdown -h now
}
trap replace_failed_host EXIT

step="install packages"
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
  step="install gVisor"
  binary=/usr/local/bin/runsc
  aws s3 cp --only-show-errors "s3://${ArtifactBucket}/${GvisorBinary}" "$binary"
  sha512="$(basename "${GvisorBinary}")"
  sha512sum --check --strict --quiet <<<"$sha512  $binary"
  chmod 0755 "$binary"
  /usr/local/bin/runsc install -- --network=none --oci-seccomp # without it, runsc ignores the seccomp profile
fi

step="start Docker"
systemctl daemon-reload
systemctl enable docker
systemctl restart docker

step="load images"
bundle=/var/tmp/python-exec.tar.gz
aws s3 cp --only-show-errors "s3://${ArtifactBucket}/${HostImageBundle}" "$bundle"
sha256="$(basename "${HostImageBundle}" .tar.gz)"
sha256sum --check --strict --quiet <<<"$sha256  $bundle"
docker load --input "$bundle"
rm "$bundle"

# The agent runs as an unprivileged user with the socket's group. Access to the socket is root access to this host.
socket=/var/run/docker.sock
container_options=(--network host --volume "$socket:$socket" --user "900:$(stat -c %g "$socket")"
  --read-only --cap-drop ALL --security-opt no-new-privileges --env "AWS_DEFAULT_REGION=${AWS::Region}"
  --log-driver awslogs --log-opt "awslogs-group=${HostLogs}" --log-opt "awslogs-region=${AWS::Region}"
  --log-opt mode=non-blocking)

step="start the agent"
docker run --detach --name python-exec-agent --restart unless-stopped --stop-timeout 20 "${!container_options[@]}" \
  --log-opt "awslogs-stream=$HOSTNAME/agent" \
  --env "JOB_QUEUE_URL=${JobQueue}" \
  --env "DATA_JOB_QUEUE_URL=${DataJobQueue}" \
  --env "RESULTS_QUEUE_URL=${ResultsQueue}" \
  --env "PAYLOAD_STORE_URL=https://${PayloadBucket.RegionalDomainName}" \
  --env "OCI_RUNTIME=$runtime" \
  --env "METRICS_NAMESPACE=${AWS::StackName}" \
  python-exec-agent

cat >/etc/systemd/system/python-exec-drain.service <<unit
[Unit]
Description=Drain this python-exec host when EC2 is about to terminate it
Wants=docker.service
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

# Put the host into service once its sandboxes have passed the isolation check.
has_sandboxes() { # under load all sandboxes are in use
  curl -fs --max-time 5 http://127.0.0.1:9464/metrics |
    awk '/^python_exec_isolation_check_passed / { passed = $2 > 0 }
      /^python_exec_(warm_sandboxes|jobs_running)\{/ { split($1, name, "{"); sandboxes[name[2]] += $2 }
      END { for (runtime in sandboxes) { total++; ready += sandboxes[runtime] > 0 } exit !(passed && total && ready == total) }'
}
step="wait for the isolation check"
tries=150
until has_sandboxes; do
  ((--tries)) || exit 1
  sleep 2
done
step="put the host into service"
complete_launch CONTINUE
