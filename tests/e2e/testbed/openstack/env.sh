# Environment of everything that belongs to the clouds (sourced; inside the lab).
# shellcheck shell=bash disable=SC2034,SC2045,SC2154
. "$(dirname "${BASH_SOURCE[0]}")/../lib/settings.sh"
# the shims come first; nothing of the caller's PATH, since another Python must not be found before Debian's
export PATH=$CLOUDS/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# cloud_env a|b: the variables of a cloud, and its release's programs in PATH, after our own
cloud_env() { cloud_vars "$1"; export PATH=$FORKSERVERS/bin:$CLOUDS/bin:$BINARIES:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; }
export HOME=/root LC_ALL=C.UTF-8 LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$TB/openstack/py
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR TMPDIR
