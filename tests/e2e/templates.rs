//! Files that images describe: when they are written, and where they cannot be.

use lxd_tests::containers::{busybox, hosting, import, shell};
use lxd_tests::fixtures::Recipe;

#[test]
fn templates_are_applied_when_they_say() {
    let (daemon, _) = hosting();
    let more = "templates:\n  \
        /etc/created:\n    when: [create]\n    template: say.tpl\n  \
        /etc/copied:\n    when: [copy]\n    template: say.tpl\n  \
        /etc/started:\n    when: [start]\n    template: say.tpl\n  \
        /etc/passwd:\n    when: [create]\n    create_only: true\n    template: say.tpl\n  \
        /etc/config:\n    when: [create, copy]\n    template: config.tpl\n    \
        properties:\n      default: none\n";
    let templates = [
        ("say.tpl", "{{ trigger }} {{ container.name }} {{ path }}\n"),
        (
            "config.tpl",
            "{{ config_get(\"user.x\", properties.default) }}\
             {% if container.name == \"c2\" %} copy{% endif %} {{ x|default:\"y\" }} <&>\n",
        ),
    ];
    import(&daemon, "tpl", &busybox(&Recipe::new("tpl").more(more), &templates), "");
    daemon.lxc("init tpl c1 -c user.x=set").ok();
    daemon.lxc("copy c1 c2").ok();
    daemon.lxc("start c1 c2").ok();
    shell(&daemon, "c1", "cat /etc/created").prints("create c1 /etc/created\n");
    shell(&daemon, "c1", "cat /etc/started").prints("start c1 /etc/started\n");
    shell(&daemon, "c1", "cat /etc/config").prints("set y <&>\n");
    shell(&daemon, "c1", "cat /etc/passwd").says("root:x:0:0");
    shell(&daemon, "c2", "cat /etc/copied").prints("copy c2 /etc/copied\n");
    shell(&daemon, "c2", "cat /etc/config").prints("set copy y <&>\n");
    shell(&daemon, "c2", "stat -c %u:%g /etc/copied").prints("0:0\n");
    shell(&daemon, "c1", "test ! -e /etc/copied");
    shell(&daemon, "c1", "echo gone > /etc/started; echo mine > /etc/created");
    daemon.lxc("restart -f c1").ok();
    shell(&daemon, "c1", "cat /etc/created /etc/started").prints("mine\nstart c1 /etc/started\n");
}

#[test]
fn a_hostile_template_fails_and_touches_nothing() {
    let (daemon, _) = hosting();
    let canary = daemon.file("canary", b"secret of the host\n");
    let path = canary.display();
    let target = "templates:\n  /link:\n    when: [create, start]\n    template: t.tpl\n";
    let image = lxd_tests::containers::busybox_with(
        &Recipe::new("link").more(target),
        &[("t.tpl", "hostile\n")],
        |tar| tar.link("rootfs/link", &path.to_string()),
    );
    import(&daemon, "link", &image, "");
    daemon.lxc("launch link c1").run();
    assert_eq!(std::fs::read(&canary).unwrap(), b"secret of the host\n");

    let cases = [
        (
            "source",
            format!(
                "templates:\n  /etc/x:\n    when: [create]\n    template: ../../../../../../../..{path}\n"
            ),
        ),
        (
            "target",
            format!(
                "templates:\n  ../../../../../../../../..{path}:\n    when: [create]\n    template: t.tpl\n"
            ),
        ),
        (
            "include",
            "templates:\n  /etc/x:\n    when: [create]\n    template: include.tpl\n".to_owned(),
        ),
    ];
    let include = format!("{{% include \"{path}\" %}}\n");
    let templates = [("t.tpl", "hostile\n"), ("include.tpl", include.as_str())];
    for (name, more) in &cases {
        let image = busybox(&Recipe::new(name).more(more), &templates);
        let file = daemon.file("hostile.tar", &image);
        let line = format!("image import {} --alias {name}", file.display());
        if daemon.lxc(&line).run().code == 0 {
            daemon.lxc(&format!("init {name} h-{name}")).run();
            let leaked = daemon.lxc(&format!("file pull h-{name}/etc/x -")).run();
            assert!(!leaked.stdout.contains("secret"), "{name}:\n{leaked}");
        }
        assert_eq!(std::fs::read(&canary).unwrap(), b"secret of the host\n", "{name}");
    }
    // A template without an end is cut off, and the daemon goes on.
    let bomb = "{% for a in \"aaaaaaaaaaaaaaaa\" %}".repeat(24) + "x" + &"{% endfor %}".repeat(24);
    let more = "templates:\n  /etc/x:\n    when: [create]\n    template: bomb.tpl\n";
    import(&daemon, "bomb", &busybox(&Recipe::new("bomb").more(more), &[("bomb.tpl", &bomb)]), "");
    daemon.lxc("launch bomb c9").fails();
    daemon.lxc("init busybox c10").ok();
}
