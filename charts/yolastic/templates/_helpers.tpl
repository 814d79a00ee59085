{{/* Name of everything that belongs to the operator: the release's, and what it is. A release's may have dots, ours may not. */}}
{{- define "yolastic.operator" -}}
{{- $release := .Release.Name | replace "." "-" | trunc 36 | trimSuffix "-" -}}
{{- if contains "yolastic" $release }}{{ $release }}-operator{{ else }}{{ $release }}-yolastic-operator{{ end }}
{{- end }}

{{/* Name of the Service, which has to begin with a letter. */}}
{{- define "yolastic.metrics" -}}
{{- $name := printf "%s-metrics" (include "yolastic.operator" .) -}}
{{- if regexMatch "^[0-9]" $name }}r{{ end }}{{ $name }}
{{- end }}

{{/* Name of what is cluster-wide: two releases in two namespaces do not meet, since no name of either has a colon. */}}
{{- define "yolastic.clusterName" -}}
{{ .Release.Namespace }}:{{ include "yolastic.operator" . }}
{{- end }}

{{- define "yolastic.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/part-of: yolastic
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What the operator's pods are found by; workers let the pods with this name reach their control port. */}}
{{- define "yolastic.selector" -}}
app.kubernetes.io/name: yolastic-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}
