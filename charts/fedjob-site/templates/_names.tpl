{{- define "fedjob-site.own" -}}
app.kubernetes.io/name: fedjob-site
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels of every object: the chart's own, and the user's. */}}
{{- define "fedjob-site.labels" -}}{{ merge (include "fedjob-site.own" . | fromYaml) .Values.commonLabels | toYaml }}{{- end }}

{{/* What the hub knows of the site. The same for the release and for its notes. */}}
{{- define "fedjob-site.registration" -}}
apiVersion: fedjob.dev/v1alpha1
kind: FederatedSite
metadata:
  name: {{ .Values.site.name }}
  namespace: {{ .Values.hub.namespace }}
spec:
  type: Local
  approved: {{ .Values.hub.approved }}
  {{- with .Values.site.displayName }}
  displayName: {{ . | quote }}
  {{- end }}
  allowedNamespaces: {{ .Values.hub.allowedNamespaces | toJson }}
  local: {namespace: {{ .Release.Namespace }}}
{{- end }}
