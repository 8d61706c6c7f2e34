{{- define "varve.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "varve.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "varve.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "varve.selectorLabels" -}}
app.kubernetes.io/name: {{ include "varve.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "varve.labels" -}}
{{ include "varve.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "varve.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "varve.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "varve.image" -}}
{{- if .Values.image.registry }}{{ .Values.image.registry }}/{{ end }}
{{- .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{- define "varve.podDomain" -}}
{{- printf "%s-headless.$(POD_NAMESPACE).svc.%s" (include "varve.fullname" .) .Values.clusterDomain }}
{{- end }}

{{- /* The three that found the cluster, whatever the number of replicas is later. */ -}}
{{- define "varve.seeds" -}}
{{- $name := include "varve.fullname" . }}
{{- $domain := include "varve.podDomain" . }}
{{- $port := int .Values.listeners.peer.port }}
{{- range $i := until 3 }}
{{- if $i }},{{ end }}{{ printf "%s-%d.%s:%d" $name $i $domain $port }}
{{- end }}
{{- end }}

{{- /* One line per key: later ones win, so that what people set wins over what the chart sets. */ -}}
{{- define "varve.toml" -}}
{{- $keys := dict "node.id_from" "hostname" }}
{{- $_ := set $keys "storage.data_dir" "/var/lib/varve/data" }}
{{- $_ := set $keys "listeners.client.address" (printf "0.0.0.0:%d" (int .Values.listeners.client.port)) }}
{{- $_ := set $keys "listeners.peer.address" (printf "0.0.0.0:%d" (int .Values.listeners.peer.port)) }}
{{- $_ := set $keys "http.address" (printf "0.0.0.0:%d" (int .Values.listeners.http.port)) }}
{{- $_ := set $keys "shutdown.drain_grace" "4s" }}
{{- $_ := set $keys "log.format" "json" }}
{{- if gt (int .Values.replicaCount) 1 }}
{{- $_ := set $keys "cluster.bootstrap_expect" "3" }}
{{- end }}
{{- if .Values.tls.enabled }}
{{- $_ := set $keys "listeners.client.tls.mode" .Values.tls.client.mode }}
{{- $_ := set $keys "listeners.client.tls.cert" "/etc/varve/tls/client/tls.crt" }}
{{- $_ := set $keys "listeners.client.tls.key" "/etc/varve/tls/client/tls.key" }}
{{- if eq .Values.tls.client.mode "mutual" }}
{{- $_ := set $keys "listeners.client.tls.ca" "/etc/varve/tls/client/ca.crt" }}
{{- end }}
{{- if gt (int .Values.replicaCount) 1 }}
{{- $_ := set $keys "listeners.peer.tls.ca" "/etc/varve/tls/peer/ca.crt" }}
{{- end }}
{{- else }}
{{- $_ := set $keys "listeners.client.tls.mode" "insecure" }}
{{- $_ := set $keys "listeners.peer.tls.mode" "insecure" }}
{{- end }}
{{- if .Values.listeners.kafka.enabled }}
{{- $_ := set $keys "listeners.kafka.address" (printf "0.0.0.0:%d" (int .Values.listeners.kafka.port)) }}
{{- if .Values.tls.enabled }}
{{- $_ := set $keys "listeners.kafka.tls.mode" .Values.tls.client.mode }}
{{- $_ := set $keys "listeners.kafka.tls.cert" "/etc/varve/tls/client/tls.crt" }}
{{- $_ := set $keys "listeners.kafka.tls.key" "/etc/varve/tls/client/tls.key" }}
{{- if eq .Values.tls.client.mode "mutual" }}
{{- $_ := set $keys "listeners.kafka.tls.ca" "/etc/varve/tls/client/ca.crt" }}
{{- end }}
{{- else }}
{{- $_ := set $keys "listeners.kafka.tls.mode" "insecure" }}
{{- end }}
{{- end }}
{{- range $key, $value := .Values.config }}
{{- $_ := set $keys $key $value }}
{{- end }}
{{- range $key, $value := $keys }}
{{ $key }} = {{ $value | quote }}
{{- end }}
{{- end }}
