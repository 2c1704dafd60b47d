// What the charts' monitors and rules are for: the definitions of the Prometheus operator, which its module holds.
module fedjob.dev/hack/monitoring

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
