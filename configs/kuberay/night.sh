#!/usr/bin/env bash
# A night that begins with documents: the first stage, then the job that reranks its candidates. It lies beside their
# configs, first.yaml and job.yaml (docs/kubernetes-documents.md makes a ConfigMap of the three).
#   FIRST_FLAGS="--check-bytes" JOB_FLAGS="--set reuse=..." bash night.sh 2026-11-20
#   SKIP_FIRST=1 bash night.sh 2026-11-20        # the reranking job alone
# All variables may be missing. The status is 0, or that of the command that failed; 3 (some rows were rejected) is no
# failure.
set -uo pipefail
date=${1:?give the date: night.sh 2026-11-20}
folder=$(dirname "$0")

rerank() {
  # shellcheck disable=SC2086  # flags are words
  python -m pipeline.rerank --config "$folder/job.yaml" --set "run_date=$date" ${JOB_FLAGS:-} "$@"
}

# A mistake in job.yaml is found before the first stage works. Its input does not count: there is none yet, or the first
# stage is about to mend it. A dry run without its input ends with 75 where all else is well.
plan=$(rerank --dry-run --set "input.path=/not/there/yet/$date" 2>&1)
status=$?
[ $status -eq 75 ] || { echo "$plan"; echo "night.sh: the dry run of reranking ended with $status"; exit $status; } >&2

if [ -z "${SKIP_FIRST:-}" ]; then
  echo "night.sh: first stage of $date" >&2
  # shellcheck disable=SC2086
  python -m pipeline.retrieve --config "$folder/first.yaml" --set "run_date=$date" ${FIRST_FLAGS:-}
  status=$?
  [ $status -eq 0 ] || [ $status -eq 3 ] || { echo "night.sh: the first stage ended with $status" >&2; exit $status; }
fi

echo "night.sh: reranking of $date" >&2
rerank
status=$?
[ $status -eq 0 ] || [ $status -eq 3 ] || { echo "night.sh: reranking ended with $status" >&2; exit $status; }
