#!/usr/bin/env bash
# kstatus says "Current", its word for ready, of objects whose status says plainly that they failed.
#
# What surprises: in the status of a kind that it does not know, kstatus reads observedGeneration and the conditions
#   Ready, Reconciling and Stalled, and nothing else. `phase: Failed`, a condition Succeeded=False (Tekton's) and a
#   condition Failed=True are all "Current: Resource is current", as is an object whose controller never saw it. Of a
#   Job, which it knows, the same Failed=True is "Failed".
# Whom it bites: whoever waits for custom resources with a tool that asks kstatus, as Helm 4 does by a fork of it: the
#   wait ends well at once.
# Versions: sigs.k8s.io/cli-utils v0.37.2 with k8s.io/apimachinery v0.30.1.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export GOPATH="$tmp/go" GOCACHE="$tmp/cache" GOFLAGS=-modcacherw CGO_ENABLED=0
mkdir "$tmp/show"
cd "$tmp/show"

cat > main.go <<'EOF'
// What kstatus says of objects that failed.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

var cases = []struct {
	want   status.Status
	object string
}{
	{"Current", `{"apiVersion":"velero.io/v1","kind":"Backup","metadata":{"name":"nightly","generation":1},
		"status":{"phase":"Failed","failureReason":"no space left"}}`},
	{"Current", `{"apiVersion":"tekton.dev/v1","kind":"PipelineRun","metadata":{"name":"build","generation":1},
		"status":{"conditions":[{"type":"Succeeded","status":"False","reason":"Failed","message":"exit code 1"}]}}`},
	{"Current", `{"apiVersion":"example.com/v1","kind":"Task","metadata":{"name":"copy","generation":1},
		"status":{"observedGeneration":1,"conditions":[{"type":"Failed","status":"True","reason":"NoSpace"}]}}`},
	{"Current", `{"apiVersion":"example.com/v1","kind":"Task","metadata":{"name":"never-seen","generation":1}}`},
	{"InProgress", `{"apiVersion":"example.com/v1","kind":"Task","metadata":{"name":"with-ready","generation":1},
		"status":{"conditions":[{"type":"Ready","status":"False","reason":"NoSpace"}]}}`},
	{"Failed", `{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"copy","generation":1},"spec":{},
		"status":{"conditions":[{"type":"Failed","status":"True","reason":"BackoffLimitExceeded"}]}}`},
}

func main() {
	build, _ := debug.ReadBuildInfo()
	for _, module := range build.Deps {
		if module.Path == "sigs.k8s.io/cli-utils" || module.Path == "k8s.io/apimachinery" {
			fmt.Println("version:", module.Path, module.Version)
		}
	}
	changed := false
	for _, c := range cases {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON([]byte(c.object)); err != nil {
			panic(err)
		}
		result, err := status.Compute(object)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%-11s %-10s status %v\n    kstatus: %s: %s\n", object.GetKind(), object.GetName(),
			object.Object["status"], result.Status, result.Message)
		changed = changed || result.Status != c.want
	}
	if changed {
		fmt.Println("CHANGED: this is not what this version did when this script was written")
		os.Exit(1)
	}
}
EOF
{
    go mod init show
    go get sigs.k8s.io/cli-utils@v0.37.2
    go mod tidy
    go build -o show .
} > build.log 2>&1 || { cat build.log; exit 1; }
./show
