{{/* What the release's objects are called: the release's own name if it says fedjob. */}}
{{- define "fedjob.fullname" -}}
{{- if contains "fedjob" .Release.Name -}}{{ .Release.Name | trunc 44 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-fedjob" .Release.Name | trunc 44 | trimSuffix "-" }}{{- end -}}
{{- end }}

{{- define "fedjob.operator" -}}{{ include "fedjob.fullname" . }}-operator{{- end }}
{{- define "fedjob.hub" -}}{{ include "fedjob.fullname" . }}-hub{{- end }}
{{- define "fedjob.account" -}}{{ .Values.serviceAccount.name | default (include "fedjob.operator" .) }}{{- end }}

{{- define "fedjob.selector" -}}
app.kubernetes.io/name: fedjob-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* No app.kubernetes.io/managed-by: fedjob here: that is the operator's mark on what it makes itself. */}}
{{- define "fedjob.own" -}}
{{ include "fedjob.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{/* Labels of every object: the chart's own, and the user's. */}}
{{- define "fedjob.labels" -}}{{ merge (include "fedjob.own" . | fromYaml) .Values.commonLabels | toYaml }}{{- end }}

{{/* An image's full name. Takes a list: the image's values, a registry to fall back on, the chart. */}}
{{- define "fedjob.image" -}}
{{- $image := index . 0 -}}
{{- with (coalesce $image.registry (index . 1)) }}{{ . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default (index . 2).AppVersion }}{{ end -}}
{{- end }}

{{- define "fedjob.operatorImage" -}}{{ include "fedjob.image" (list .Values.image "" .Chart) }}{{- end }}
{{- define "fedjob.runtimeImage" -}}{{ include "fedjob.image" (list .Values.runtimeImage .Values.image.registry .Chart) }}{{- end }}

{{/* The namespaces that the operator is limited to, joined with commas; none: all. */}}
{{- define "fedjob.watched" -}}
{{- $named := concat .Values.rbac.namespaces .Values.rbac.granted | uniq }}
{{- if not .Values.rbac.clusterWide -}}{{ $named | default (list .Release.Namespace) | join "," }}
{{- else if $named -}}{{ fail "rbac.clusterWide: true means every namespace; leave rbac.namespaces and rbac.granted empty, or set it to false" }}{{ end -}}
{{- end }}

{{- define "fedjob.isHub" -}}{{ if has "hub" .Values.controllers }}yes{{ end }}{{- end }}

{{/* Pod Security "restricted", and who the pod runs as. */}}
{{- define "fedjob.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- range $name, $value := .Values.podSecurityContext }}
{{- if ne $value nil }}
{{ $name | quote }}: {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}
{{- define "fedjob.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where the operator's pods and that of the test may run, and how urgent they are. */}}
{{- define "fedjob.scheduling" -}}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with index $.Values $name }}
{{ $name | quote }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* What all pods of jobs have, as the operator reads it. Kubernetes expands $(NAME) in arguments, and reads $$ as $. */}}
{{- define "fedjob.jobPods" -}}
{{- $security := dict }}
{{- range $name, $value := .Values.jobs.podSecurityContext }}
{{- if ne $value nil }}{{ $_ := set $security $name $value }}{{ end }}
{{- end }}
{{- dict "labels" .Values.jobs.podLabels "annotations" .Values.jobs.podAnnotations "security" $security "env" .Values.jobs.env | toJson | replace "$" "$$" }}
{{- end }}

{{/* What jobs may ask for their servers, as the operator reads it. An empty amount is none. */}}
{{- define "fedjob.serverBounds" -}}
{{- $allowed := deepCopy .Values.server.allowed }}
{{- if not $allowed.maxStorage }}{{ $_ := unset $allowed "maxStorage" }}{{ end }}
{{- $allowed | toJson | replace "$" "$$" }}
{{- end }}

{{/* Whoever may scrape, as peers of a network policy. */}}
{{- define "fedjob.scrapers" -}}
{{- range .Values.metrics.scrapeFrom }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . | quote }}}}
{{- end }}
{{- end }}

{{/* A monitor that a network policy keeps from scraping would be a silent mistake. */}}
{{- define "fedjob.checkScrape" -}}
{{- if and .Values.networkPolicy.enabled (not .Values.metrics.scrapeFrom) -}}
{{- fail "metrics.scrapeFrom: empty, so the network policies let nobody scrape; name the namespace of your Prometheus, e.g. --set metrics.scrapeFrom={monitoring}" -}}
{{- end -}}
{{- end }}

{{/* Whether pods have annotations for a Prometheus without monitors. Takes a list: the values, the monitor that would find them. */}}
{{- define "fedjob.annotated" -}}
{{- $how := (index . 0).metrics.annotations -}}
{{- if or (eq $how "Always") (and (eq $how "Auto") (not (index . 1).enabled)) }}yes{{ end -}}
{{- end }}

{{/* Resources as an argument: name=amount, joined with commas. A large number would be 1e+06 with toString. */}}
{{- define "fedjob.amounts" -}}
{{- $found := list }}{{ range $name, $amount := . }}{{ $found = append $found (printf "%s=%s" $name (kindIs "string" $amount | ternary $amount (toJson $amount))) }}{{ end -}}
{{ join "," $found }}
{{- end }}

{{/* Whole numbers as an argument, joined with commas. */}}
{{- define "fedjob.numbers" -}}
{{- $found := list }}{{ range . }}{{ $found = append $found (printf "%d" (int64 .)) }}{{ end -}}
{{ join "," $found }}
{{- end }}
