{{- define "fedjob-site.own" -}}
app.kubernetes.io/name: fedjob-site
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{/* Labels of every object: the chart's own, and the user's. */}}
{{- define "fedjob-site.labels" -}}{{ merge (include "fedjob-site.own" . | fromYaml) .Values.commonLabels | toYaml }}{{- end }}

{{/* What the hub knows of the site. The same for the release and for its notes. */}}
{{- define "fedjob-site.registration" -}}
apiVersion: fedjob.dev/v1alpha1
kind: FederatedSite
metadata:
  name: {{ .Values.site.name | quote }}
  namespace: {{ .Values.hub.namespace | quote }}
spec:
  type: Local
  approved: {{ .Values.hub.approved | toJson }}
  {{- with .Values.site.displayName }}
  displayName: {{ . | quote }}
  {{- end }}
  allowedNamespaces: {{ .Values.hub.allowedNamespaces | toJson }}
  local: {namespace: {{ .Release.Namespace | quote }}}
{{- end }}
