//go:build tools

// Package programs names the programs that hack/control-plane builds, so that go.mod and go.sum hold what they need.
package programs

import _ "helm.sh/helm/v4/cmd/helm"
