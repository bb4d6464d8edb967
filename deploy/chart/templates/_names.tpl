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

{{- define "kvorum.backupSelector" -}}
app.kubernetes.io/name: kvorum-backup
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kvorum.backupPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: backup
    image: {{ include "kvorum.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [kvorum, backup]
    args:
      - {{ if eq .Values.backup.mode "scheduled" }}once{{ else }}run{{ end }}
      - --endpoints={{ if .Values.tls.enabled }}https{{ else }}http{{ end }}://{{ include "kvorum.name" . }}.{{ .Release.Namespace }}.svc:2379
      - --scratch-dir=/scratch
      - --keep-full={{ .Values.backup.keepFull }}
      - --keep-days={{ .Values.backup.keepDays }}
      {{- range .Values.backup.stores }}
      - {{ printf "--store=%s" . | quote }}
      {{- end }}
      {{- range .Values.backup.recipients }}
      - --recipient={{ . }}
      {{- end }}
      {{- if .Values.tls.enabled }}
      - --cacert=/etc/kvorum/tls/ca.crt
      - --cert=/etc/kvorum/tls/tls.crt
      - --key=/etc/kvorum/tls/tls.key
      {{- end }}
      {{- if eq .Values.backup.mode "continuous" }}
      - --listen-metrics=0.0.0.0:2381
      {{- end }}
    {{- if .Values.users.name }}
    env:
      - name: ETCDCTL_USER
        value: {{ .Values.users.name }}
      - name: ETCDCTL_PASSWORD
        valueFrom:
          secretKeyRef:
            name: {{ .Values.users.secret }}
            key: password
    {{- end }}
    {{- with .Values.backup.credentials }}
    envFrom:
      - secretRef:
          name: {{ . }}
    {{- end }}
    {{- if eq .Values.backup.mode "continuous" }}
    ports:
      - name: metrics
        containerPort: 2381
    {{- end }}
    {{- with .Values.backup.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    volumeMounts:
      - name: scratch
        mountPath: /scratch
      {{- if .Values.backup.volume }}
      - name: backup
        mountPath: /backup
      {{- end }}
      {{- if .Values.tls.enabled }}
      - name: tls
        mountPath: /etc/kvorum/tls
        readOnly: true
      {{- end }}
volumes:
  - name: scratch
    emptyDir:
      sizeLimit: {{ .Values.backup.scratchSize }}
  {{- with .Values.backup.volume }}
  - name: backup
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.tls.enabled }}
  - name: tls
    secret:
      secretName: {{ include "kvorum.tlsSecret" . }}
      defaultMode: 0440
  {{- end }}
{{- end }}
