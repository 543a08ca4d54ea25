#!/usr/bin/env bash
# A night that begins with documents: the first stage, then the job that reranks its candidates. It lies beside their
# configs, first.yaml and job.yaml (docs/kubernetes-documents.md makes a ConfigMap of the three).
#   FIRST_FLAGS="--check-bytes" JOB_FLAGS="--set reuse=..." bash night.sh 2026-11-20
# Both variables may be missing. The status is 0, or that of the command that failed; 3 (some rows were rejected) is no
# failure.
set -uo pipefail
date=$1
folder=$(dirname "$0")

retrieve() {
  # shellcheck disable=SC2086  # flags are words
  python -m pipeline.retrieve --config "$folder/first.yaml" --set "run_date=$date" ${FIRST_FLAGS:-}
}

rerank() {
  # shellcheck disable=SC2086
  python -m pipeline.rerank --config "$folder/job.yaml" --set "run_date=$date" ${JOB_FLAGS:-} "$@"
}

# A mistake of the second command is found before the first one works. 75 is no mistake: its table is not there yet.
echo "A dry run of job.yaml. That its input is not there yet is as it should be:" >&2
rerank --dry-run > /dev/null
status=$?
[ $status -eq 0 ] || [ $status -eq 75 ] || exit $status

retrieve
status=$?
[ $status -eq 0 ] || [ $status -eq 3 ] || exit $status

rerank
status=$?
[ $status -eq 3 ] || exit $status
