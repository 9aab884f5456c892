{{/* Names and labels. */}}

{{- define "vmm.operator" -}}
{{- printf "%s-operator" (.Release.Name | trimSuffix "-operator" | trunc 54 | trimSuffix "-") -}}
{{- end }}

{{- define "vmm.selector" -}}
app.kubernetes.io/name: vmmigration
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "vmm.labels" -}}
app.kubernetes.io/name: vmmigration
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "vmm.image" -}}
{{- $i := .Values.image -}}
{{ $i.repository }}:{{ $i.tag | default .Chart.AppVersion }}{{ with $i.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* What the operator may do in the movers' namespace, here and in a registered cluster. */}}
{{- define "vmm.moverRules" -}}
# One Secret per migration with that side's credentials; it owns all Jobs.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, get, list, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, get, list, watch, delete]
# Results, progress, and the proof that a deleted pod is gone.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, delete]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# Disks that travel as block devices: claims of the volumes that movers get.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [create, list, delete]
{{- end }}

{{/* Disks that travel as block devices: what is not in any namespace, here and in a registered cluster. */}}
{{- define "vmm.volumeRules" -}}
# Volumes of the clouds for movers; found by the migration's label. Nothing of others is deleted.
- apiGroups: [""]
  resources: [persistentvolumes]
  verbs: [create, list, delete]
# Whether this is possible here: the CSI driver, and Ready nodes with their zones.
- apiGroups: [storage.k8s.io]
  resources: [csidrivers]
  verbs: [list]
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
{{- end }}
