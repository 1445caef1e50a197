"""Judges the results of testssl.sh and sslyze: `judge.py testssl|sslyze FILE`. The exit code is 1 if there are findings."""

import json
import sys

# Findings that do not concern the relay: the tool's own OpenSSL, and a DNS record that localhost cannot have.
NOT_OURS = {'engine_problem', 'DNS_CAArecord'}
AEAD = ('GCM', 'POLY1305', 'CCM')


def testssl(found):
    """Everything above 'info', and required checks that are missing."""
    for one in found:
        if one['severity'] not in ('OK', 'INFO') and one['id'] not in NOT_OURS:
            yield f"{one['id']}: {one['severity']}: {one['finding']}"
    by_id = {one['id']: one['finding'] for one in found}
    wanted = {
        'TLS1': 'not offered', 'TLS1_1': 'not offered', 'TLS1_2': 'offered', 'TLS1_3': 'offered',
        'secure_client_renego': 'not vulnerable', 'CRIME_TLS': 'not vulnerable',
        'TLS_session_ticket': '<daily', 'cipherlist_3DES_IDEA': 'not offered',
    }
    for what, text in wanted.items():
        if text not in by_id.get(what, ''):
            yield f'{what}: {by_id.get(what)!r}, {text!r} expected'


def sslyze(found):
    """The versions, the suites, and features that must be off."""
    [server] = found['server_scan_results']
    if server['scan_status'] != 'COMPLETED':
        yield f"the scan: {server['scan_status']}: {server['connectivity_error_trace']}"
        return
    scan = {name: one for name, one in server['scan_result'].items() if one and one['status'] != 'NOT_SCHEDULED'}
    for name, one in scan.items():
        if one['status'] != 'COMPLETED':
            yield f"{name}: {one['status']}: {one['error_reason']}"
    got = {name: one['result'] for name, one in scan.items() if one['status'] == 'COMPLETED'}
    for version in ('ssl_2_0', 'ssl_3_0', 'tls_1_0', 'tls_1_1', 'tls_1_2', 'tls_1_3'):
        suites = [one['cipher_suite']['name'] for one in got[f'{version}_cipher_suites']['accepted_cipher_suites']]
        if bool(suites) != (version in ('tls_1_2', 'tls_1_3')):
            yield f'{version}: accepts {suites}'
        yield from (f'{version}: {suite} is no AEAD' for suite in suites if not any(it in suite for it in AEAD))
    off = [
        ('tls_compression', 'supports_compression'), ('tls_1_3_early_data', 'supports_early_data'),
        ('session_renegotiation', 'is_vulnerable_to_client_renegotiation_dos'),
        ('heartbleed', 'is_vulnerable_to_heartbleed'), ('openssl_ccs_injection', 'is_vulnerable_to_ccs_injection'),
    ]
    yield from (f'{name}: {field}' for name, field in off if got[name][field])
    if not got['robot']['robot_result'].startswith('NOT_VULNERABLE'):
        yield f"robot: {got['robot']['robot_result']}"
    for chain in got['certificate_info']['certificate_deployments']:
        if not any(path['was_validation_successful'] for path in chain['path_validation_results']):
            yield f"certificate: {[path['validation_error'] for path in chain['path_validation_results']]}"


def main():
    tool, path = sys.argv[1:]
    with open(path, encoding='utf-8') as file:
        found = list({'testssl': testssl, 'sslyze': sslyze}[tool](json.load(file)))
    for line in found:
        print(f'{tool}: {line}', file=sys.stderr)
    print(f'{tool}: {"passed" if not found else f"{len(found)} findings"}')
    return bool(found)


if __name__ == '__main__':
    sys.exit(main())
