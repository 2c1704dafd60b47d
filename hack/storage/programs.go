//go:build tools

// Package programs names the program that hack/control-plane builds, so that go.mod and go.sum hold what it needs.
package programs

import _ "github.com/rancher/local-path-provisioner"
