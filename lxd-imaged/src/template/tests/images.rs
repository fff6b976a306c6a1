//! Templates as images have them: what cloud-init, host names and networks of the usual
//! distributions are made from.

use super::{context, map, render};
use crate::template::Context;

fn rendered(source: &str, context: &Context) -> String {
    render(source, context).unwrap()
}

fn with_config(pairs: &[(&str, &str)]) -> Context {
    Context { config: map(pairs), ..context() }
}

#[test]
fn the_host_name_is_that_of_the_instance() {
    let context = context();
    assert_eq!(rendered("{{ container.name }}\n", &context), "c1\n");
    assert_eq!(rendered("{{ instance.name }}", &context), "c1");
    // CentOS 6 and its kin.
    let sysconfig = "NETWORKING=yes\nHOSTNAME={{ container.name }}\n";
    assert_eq!(rendered(sysconfig, &context), "NETWORKING=yes\nHOSTNAME=c1\n");
    // Gentoo.
    assert_eq!(rendered("hostname=\"{{ container.name }}\"\n", &context), "hostname=\"c1\"\n");
    // openSUSE and Debian with a domain.
    let fqdn = "{{ instance.name }}{% if config_get(\"user.domain\", \"\") != \"\" %}.\
                {{ config_get(\"user.domain\", \"\") }}{% endif %}\n";
    assert_eq!(rendered(fqdn, &context), "c1\n");
    assert_eq!(rendered(fqdn, &with_config(&[("user.domain", "lan\n")])), "c1.lan\n");
}

#[test]
fn the_hosts_file_knows_the_instance() {
    let source = "127.0.0.1\tlocalhost\n127.0.1.1\t{{ container.name }}\n\n\
                  # IPv6\n::1     localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\n";
    let expected = "127.0.0.1\tlocalhost\n127.0.1.1\tc1\n\n\
                    # IPv6\n::1     localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\n";
    assert_eq!(rendered(source, &context()), expected);
}

#[test]
fn cloud_init_meta_data() {
    let source = "#cloud-config\ninstance-id: {{ container.name }}\n\
                  local-hostname: {{ container.name }}\n\
                  {{ config_get(\"user.meta-data\", \"\") }}\n";
    let plain = "#cloud-config\ninstance-id: c1\nlocal-hostname: c1\n\n";
    assert_eq!(rendered(source, &context()), plain);
    let keys = with_config(&[("user.meta-data", "public-keys: |\n  ssh-rsa AAAA me\n\n")]);
    let with_keys = "#cloud-config\ninstance-id: c1\nlocal-hostname: c1\n\
                     public-keys: |\n  ssh-rsa AAAA me\n";
    assert_eq!(rendered(source, &keys), with_keys);
}

#[test]
fn cloud_init_user_and_vendor_data() {
    for (key, source) in [
        ("user.user-data", "{{ config_get(\"user.user-data\", properties.default) }}\n"),
        ("user.vendor-data", "{{ config_get(\"user.vendor-data\", properties.default) }}\n"),
        ("cloud-init.user-data", "{{ config_get('cloud-init.user-data', properties.default) }}\n"),
    ] {
        let mut context = with_config(&[]);
        context.properties = map(&[("default", "#cloud-config\n{}")]);
        assert_eq!(rendered(source, &context), "#cloud-config\n{}\n", "{key}");
        // What a user writes is never read as a template, nor escaped.
        let data = "#cloud-config\nruncmd:\n- echo '{{ v1 }}' && echo \"<a>\"\n";
        context.config = map(&[(key, data)]);
        assert_eq!(rendered(source, &context), data, "{key}");
    }
    // The newer key goes before the older one.
    let source = "{% if config_get(\"cloud-init.user-data\", \"\") != \"\" %}\
                  {{ config_get(\"cloud-init.user-data\", \"\") }}\
                  {% else %}{{ config_get(\"user.user-data\", properties.default) }}{% endif %}\n";
    assert_eq!(rendered(source, &context()), "#cloud-config\nx: 1\n");
    let both = with_config(&[("user.user-data", "old"), ("cloud-init.user-data", "new")]);
    assert_eq!(rendered(source, &both), "new\n");
    assert_eq!(rendered(source, &with_config(&[])), "dflt\n");
}

#[test]
fn cloud_init_network_configuration() {
    let source = "\
{% if config_get(\"user.network-config\", \"\") == \"\" %}version: 1
config:
  - type: physical
    name: {% if instance.type == \"virtual-machine\" %}enp5s0{% else %}eth0{% endif %}
    subnets:
      - type: {% if config_get(\"user.network_mode\", \"\") == \"link-local\" %}manual{% else %}dhcp{% endif %}
        control: auto{% else %}{{ config_get(\"user.network-config\", \"\") }}{% endif %}
";
    let dhcp = "version: 1\nconfig:\n  - type: physical\n    name: eth0\n    subnets:\n      \
                - type: dhcp\n        control: auto\n";
    assert_eq!(rendered(source, &context()), dhcp);
    let link_local = with_config(&[("user.network_mode", "link-local")]);
    assert_eq!(rendered(source, &link_local), dhcp.replace("dhcp", "manual"));
    let own = "version: 2\nethernets:\n  eth0: {dhcp4: true}\n";
    assert_eq!(rendered(source, &with_config(&[("user.network-config", own)])), own);
    let mut machine = context();
    machine.instance.insert("type".into(), "virtual-machine".into());
    assert_eq!(rendered(source, &machine), dhcp.replace("eth0", "enp5s0"));
}

#[test]
fn network_interfaces_and_sysconfig() {
    // Debian and Alpine.
    let interfaces = "\
auto lo
iface lo inet loopback

auto eth0
{% if config_get(\"user.network_mode\", \"\") == \"link-local\" %}iface eth0 inet manual
{% else %}iface eth0 inet dhcp
{% endif %}";
    let expected = "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n";
    assert_eq!(rendered(interfaces, &context()), expected);
    let link_local = with_config(&[("user.network_mode", "link-local")]);
    assert_eq!(rendered(interfaces, &link_local), expected.replace("dhcp", "manual"));
    // CentOS and Fedora.
    let ifcfg = "\
DEVICE=eth0
BOOTPROTO={% if config_get(\"user.network_mode\", \"\") == \"link-local\" %}none{% else %}dhcp{% endif %}
ONBOOT=yes
HOSTNAME={{ container.name }}
NM_CONTROLLED=no
TYPE=Ethernet
MTU=
DHCP_HOSTNAME={{ container.name }}
";
    let expected = "DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\nHOSTNAME=c1\nNM_CONTROLLED=no\n\
                    TYPE=Ethernet\nMTU=\nDHCP_HOSTNAME=c1\n";
    assert_eq!(rendered(ifcfg, &context()), expected);
    assert_eq!(rendered(ifcfg, &link_local), expected.replace("=dhcp\n", "=none\n"));
}

#[test]
fn an_upstart_job_tells_that_it_is_not_needed() {
    // Ubuntu 14.04: jobs that fail in a container are overridden by a file without variables.
    let source = "manual\n";
    assert_eq!(rendered(source, &context()), "manual\n");
    let shell = "pre-start script\n  [ \"${x#y}\" = '{ }' ] && x=${#x} %{y}\nend script\n";
    let error = render(shell, &context());
    // `{#` begins a remark in this language: such a file needs `verbatim`.
    assert!(error.unwrap_err().to_string().starts_with("line 2, column "));
    let verbatim = format!("{{% verbatim %}}{shell}{{% endverbatim %}}");
    assert_eq!(rendered(&verbatim, &context()), shell);
}

#[test]
fn the_inittab_of_alpine() {
    let source = "\
# {{ path }} of {{ container.name }}
::sysinit:/sbin/openrc sysinit
::sysinit:/sbin/openrc boot
::wait:/sbin/openrc default
{% if not config_get(\"user.no_console\", \"\") %}::respawn:/sbin/getty 38400 console
{% endif %}::ctrlaltdel:/sbin/reboot
::shutdown:/sbin/openrc shutdown
";
    let mut context = context();
    context.path = "/etc/inittab".into();
    let text = rendered(source, &context);
    assert!(text.starts_with("# /etc/inittab of c1\n::sysinit:/sbin/openrc sysinit\n"), "{text}");
    assert!(text.contains("default\n::respawn:/sbin/getty 38400 console\n::ctrlaltdel"), "{text}");
    context.config = map(&[("user.no_console", "1")]);
    assert!(!rendered(source, &context).contains("getty"));
}

#[test]
fn a_seed_that_lists_devices() {
    let source = "\
{% for name, device in devices sorted %}{% if device.type == \"nic\" -%}
  {{ name }} {{ device.hwaddr|upper }}{% if not forloop.Last %},{% endif %}
{% endif %}{% endfor %}# {{ devices|length }} {{ trigger }}
";
    assert_eq!(rendered(source, &context()), "eth0 AA,\n# 2 create\n");
    // The same loop by keys alone, as for engines without a second name.
    let by_key = "{% for k in devices sorted %}{{ k }}={{ devices[k].type }} {% endfor %}";
    assert_eq!(rendered(by_key, &context()), "eth0=nic root=disk ");
}

#[test]
fn a_file_may_depend_on_the_occasion() {
    let source = "{% if trigger == \"start\" %}again{% elif trigger == \"create\" || trigger == \
                  \"copy\" %}new{% endif %}";
    for (trigger, text) in [("create", "new"), ("copy", "new"), ("start", "again"), ("rename", "")]
    {
        let context = Context { trigger: trigger.into(), ..context() };
        assert_eq!(rendered(source, &context), text, "{trigger}");
    }
}
