{{- define "kvorum.name" -}}
{{ .Values.fullname | default .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "kvorum.selector" -}}
app.kubernetes.io/name: kvorum
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kvorum.labels" -}}
{{ include "kvorum.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "kvorum.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "kvorum.tlsSecret" -}}
{{ .Values.tls.secret | default (printf "%s-tls" (include "kvorum.name" .)) }}
{{- end }}
