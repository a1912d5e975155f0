{{- define "headgate.selector" -}}
app.kubernetes.io/name: headgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headgate.labels" -}}
{{ include "headgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Of objects that belong to no namespace. */}}
{{- define "headgate.global" -}}
{{ .Release.Namespace }}-{{ .Release.Name }}
{{- end }}

{{/* What it needs wherever InferenceServices are. */}}
{{- define "headgate.rules" -}}
{{ .Files.Get "files/rbac/budgets.yaml" }}
{{- .Files.Get "files/rbac/observe.yaml" }}
{{- .Files.Get "files/rbac/resize.yaml" }}
{{- if .Values.permissions.template }}
{{- .Files.Get "files/rbac/template.yaml" }}
{{- end }}
{{- if .Values.permissions.replicas }}
{{- .Files.Get "files/rbac/replicas.yaml" }}
{{- end }}
{{- if .Values.permissions.metricsApi }}
{{- .Files.Get "files/rbac/metrics-api.yaml" }}
{{- end }}
{{- end }}

{{- define "headgate.settings" -}}
{{- $host := dict "kind" "kserve" }}
{{- $home := dict "kind" "kubernetes" "lease" (dict "name" .Release.Name) }}
{{- if .Values.namespaced }}
{{- $_ := set $host "namespaces" .Values.namespaces }}
{{- $_ := set $home "namespaces" .Values.namespaces }}
{{- end }}
{{- $settings := dict "host" $host "home" $home "listen" "0.0.0.0:9464" "apply" .Values.apply "sources" .Values.sources }}
{{- toYaml (mergeOverwrite $settings (deepCopy .Values.settings)) }}
{{- end }}
