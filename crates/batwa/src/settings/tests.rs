//! The layers, and that table, help texts and documentation say the same.

use super::*;

fn flags(role: Role, args: &[&str]) -> Flags {
    let command = Flags::augment(Command::new("batwa").no_binary_name(true), role);
    let matches = command.try_get_matches_from(args).expect("good flags");
    Flags::from_matches(&matches, role)
}

fn file(role: Role, text: &str) -> Result<File, SettingError> {
    File::parse(Path::new("b.toml"), text, role)
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let port = |args: &[&str], environment: Environment, text: &str| {
        let file = file(Role::Agent, text).expect("a good file");
        let settings = Settings::merge(Role::Agent, flags(Role::Agent, args), &environment, file);
        let port = settings.get::<u16>("port").expect("a port").expect("set");
        (port, settings.origin("port").to_string())
    };
    let guide = [("AGENT_PORT", "3")];
    let ours = [("AGENT_PORT", "3"), ("BATWA_AGENT_PORT", "4")];
    assert_eq!(
        port(&["--port", "5"], ours.into(), "port = 2"),
        (5, "`--port`".to_owned())
    );
    assert_eq!(
        port(&[], ours.into(), "port = 2"),
        (4, "environment variable `BATWA_AGENT_PORT`".to_owned())
    );
    assert_eq!(
        port(&[], guide.into(), "port = 2"),
        (3, "environment variable `AGENT_PORT`".to_owned())
    );
    assert_eq!(
        port(&[], [("AGENT_PORT", "")].into(), "port = 2"),
        (2, "`port` in b.toml".to_owned()),
        "an empty variable counts as not set"
    );
    assert_eq!(port(&[], [].into(), ""), (8001, "the default".to_owned()));
}

#[test]
fn every_setting_can_be_given_in_all_three_places() {
    for role in [Role::Up, Role::Master, Role::Agent] {
        for setting in table::of(role) {
            let value = if setting.kind == Kind::Switch {
                "true"
            } else {
                "7"
            };
            let given = |settings: Settings| settings.text(setting.name).map(str::to_owned);
            let nothing = Environment::default();
            let flag = format!("--{}={value}", setting.name);
            let by_flag = Settings::merge(role, flags(role, &[&flag]), &nothing, File::default());
            assert_eq!(given(by_flag).as_deref(), Some(value), "{flag}");
            for name in setting.env {
                let environment = [(*name, value)].into();
                let by_environment =
                    Settings::merge(role, Flags::default(), &environment, File::default());
                assert_eq!(given(by_environment).as_deref(), Some(value), "{name}");
            }
            let text = format!("{} = {value}", setting.key());
            let file = file(role, &text).expect("a good file");
            let by_file = Settings::merge(role, Flags::default(), &nothing, file);
            assert_eq!(given(by_file).as_deref(), Some(value), "{text}");
        }
    }
}

#[test]
fn the_strongest_variable_of_each_setting_is_ours() {
    for setting in table::SETTINGS {
        assert!(setting.env[0].starts_with("BATWA_"), "{}", setting.name);
        assert!(setting.help.ends_with('.'), "{}", setting.name);
    }
}

#[test]
fn lists_are_given_again_or_with_commas_or_as_arrays() {
    let drivers = |args: &[&str], environment: Environment, text: &str| {
        let file = file(Role::Up, text).expect("a good file");
        Settings::merge(Role::Up, flags(Role::Up, args), &environment, file)
            .parse_all("driver", |text| Ok(text.to_owned()))
            .expect("texts")
    };
    let two = ["qemu", "fake"];
    assert_eq!(
        drivers(&["--driver", "qemu", "--driver", "fake"], [].into(), ""),
        two
    );
    assert_eq!(drivers(&["--driver", "qemu, fake"], [].into(), ""), two);
    assert_eq!(
        drivers(&[], [("BATWA_DRIVER", "qemu,fake")].into(), ""),
        two
    );
    assert_eq!(drivers(&[], [].into(), r#"driver = ["qemu", "fake"]"#), two);
    assert_eq!(drivers(&[], [].into(), ""), ["auto"]);
}

#[test]
fn switches_are_on_by_name_and_can_be_turned_off_again() {
    let is_on = |args: &[&str], text: &str| {
        let file = file(Role::Master, text).expect("a good file");
        let environment = [("BATWA_OPEN_REGISTRATION", "")].into();
        Settings::merge(Role::Master, flags(Role::Master, args), &environment, file)
            .is_on("open-registration")
            .expect("a switch")
    };
    assert!(!is_on(&[], ""));
    assert!(is_on(&["--open-registration"], ""));
    assert!(is_on(&[], "open_registration = true"));
    assert!(!is_on(
        &["--open-registration=false"],
        "open_registration = true"
    ));
}

#[test]
fn wrong_files_are_refused_with_the_place_and_what_is_right() {
    let refusal = |role, text| file(role, text).expect_err("a wrong file").to_string();
    insta::assert_snapshot!(refusal(Role::Master, "prot = 1"), @"b.toml: unknown key `prot`: docs/settings.md lists those there are");
    insta::assert_snapshot!(refusal(Role::Master, "public-url = 'x'"), @"b.toml: unknown key `public-url`: it is written `public_url` here");
    insta::assert_snapshot!(refusal(Role::Agent, "public_url = 'x'"), @"b.toml: `public_url` is a setting of `batwa up` and `batwa master`, not of `batwa agent`");
    insta::assert_snapshot!(refusal(Role::Master, "port = [1]"), @"b.toml: `port` must be a string or a number");
    insta::assert_snapshot!(refusal(Role::Master, "open_registration = 'yes'"), @"b.toml: `open_registration` must be true or false");
    insta::assert_snapshot!(refusal(Role::Master, "port = 1\nhost ="), @"b.toml: line 2: string values must be quoted, expected literal string");
}

#[test]
fn wrong_values_say_where_they_came_from_and_secrets_are_not_shown() {
    let environment = [("PORT", "http"), ("BATWA_API_KEY", "hunter2")].into();
    let master = Settings::merge(
        Role::Master,
        Flags::default(),
        &environment,
        File::default(),
    );
    let error = master.get::<u16>("port").expect_err("no port");
    insta::assert_snapshot!(error, @"cannot use `http` as port (from environment variable `PORT`): invalid digit found in string");
    let agent = Settings::merge(Role::Agent, Flags::default(), &environment, File::default());
    let error = agent
        .parse("api-key", |_| Err::<(), _>("too short".to_owned()))
        .expect_err("refused");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

/// What stands between the markers of docs/settings.md.
fn documentation() -> String {
    let mut page = String::from(
        "| setting | TOML key | environment | default | of | what it does |\n|---|---|---|---|---|---|\n",
    );
    for setting in table::SETTINGS {
        let env: Vec<_> = setting.env.iter().map(|name| format!("`{name}`")).collect();
        let roles: Vec<_> = setting.roles.iter().map(|role| role.command()).collect();
        let default = setting
            .default
            .map_or_else(|| "–".to_owned(), |text| format!("`{text}`"));
        let value = match setting.kind {
            Kind::Switch => String::new(),
            Kind::One | Kind::Many => format!(" {}", setting.value),
        };
        page.push_str(&format!(
            "| `--{}{value}` | `{}` | {} | {default} | {} | {} |\n",
            setting.name,
            setting.key(),
            env.join(", "),
            roles.join(", "),
            setting.help,
        ));
    }
    page
}

#[test]
fn docs_settings_md_shows_this_table() {
    const BEGIN: &str = "<!-- begin table -->\n";
    const END: &str = "<!-- end table -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let page = std::fs::read_to_string(&path).expect("docs/settings.md");
    let (before, rest) = page.split_once(BEGIN).expect("the first marker");
    let (table, after) = rest.split_once(END).expect("the last marker");
    if std::env::var_os("BATWA_UPDATE").is_some() {
        let page = format!("{before}{BEGIN}{}{END}{after}", documentation());
        std::fs::write(&path, page).expect("docs/settings.md written");
    } else {
        assert_eq!(
            table,
            documentation(),
            "run this test with BATWA_UPDATE=1 to write docs/settings.md anew"
        );
    }
}

#[test]
fn the_example_file_is_accepted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/batwa.example.toml");
    File::read(&path, Role::Up).expect("the example file");
}
