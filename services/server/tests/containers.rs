//! The image and the file for Compose in `packaging`: the program accepts their commands, and their
//! parts agree. The suite `packages` runs the image.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use yaml_rust2::{Yaml, YamlLoader};

const DOCKERFILE: &str = include_str!("../../../packaging/image/Dockerfile");
const COMPOSE: &str = include_str!("../../../packaging/compose/keytally.yaml");

/// The service in the file for Compose.
fn service() -> Yaml {
    YamlLoader::load_from_str(COMPOSE).unwrap()[0]["services"]["service"].clone()
}

/// Returns what follows a word at the beginning of a line of the Dockerfile.
fn instruction(word: &str) -> &'static str {
    let mut lines = DOCKERFILE.lines().rev();
    lines.find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).unwrap()
}

/// Returns the words of a list in JSON.
fn words(list: &str) -> Vec<String> {
    serde_json::from_str(list).unwrap()
}

/// Fails if the program does not accept these arguments.
fn accept(arguments: &[String]) {
    assert!(!arguments.is_empty());
    // The options before it are parsed too.
    let mut program = Command::new(env!("CARGO_BIN_EXE_keytally"));
    let output = program.args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn program_accepts_the_commands_of_the_image() {
    assert_eq!(words(instruction("ENTRYPOINT")), ["/keytally"]);
    let command = words(instruction("CMD"));
    accept(&command);
    assert_eq!(instruction("VOLUME"), command[command.len() - 2]);
    assert_eq!(command.last().unwrap(), "--must-exist");
    let health = words(instruction("HEALTHCHECK").split_once("CMD ").unwrap().1);
    assert_eq!(health[0], "/keytally");
    accept(&health[1..]);
}

#[test]
fn program_accepts_the_command_for_compose() {
    let command = service()["command"].clone();
    let command = command.as_vec().unwrap().iter().map(|word| word.as_str().unwrap().to_owned());
    let command: Vec<_> = command.collect();
    accept(&command);
    // It listens at the address of the image, which its health check requests.
    assert_eq!(command[..4], words(instruction("CMD")));
    assert!(!command.iter().any(|word| word == "--listen"));
    let port = instruction("ENV").strip_prefix("KEYTALLY_LISTEN=0.0.0.0:").unwrap();
    assert_eq!(port, instruction("EXPOSE"));
    assert_eq!(service()["ports"][0].as_str().unwrap(), format!("127.0.0.1:{port}:{port}"));
}

#[test]
fn service_for_compose_trusts_the_network_of_its_proxies() {
    let file = YamlLoader::load_from_str(COMPOSE).unwrap();
    let network = file[0]["networks"]["default"]["ipam"]["config"][0]["subnet"].as_str().unwrap();
    let service = service();
    let mut words = service["command"].as_vec().unwrap().iter().map(|word| word.as_str().unwrap());
    assert!(words.any(|word| word == "--trusted-proxy"));
    assert_eq!(words.next(), Some(network));
    // Its own network, and no others: the ports are those of this machine alone.
    assert!(service["networks"].is_badvalue() && service["network_mode"].is_badvalue());
    for port in service["ports"].as_vec().unwrap() {
        assert!(port.as_str().unwrap().starts_with("127.0.0.1:"));
    }
}

#[test]
fn program_accepts_the_first_commands_of_image_and_compose() {
    let line = |text: &str| text.replace("\\\n#  ", "").replace("# ", "");
    for (text, before) in [(DOCKERFILE, "keytally:/data keytally "), (COMPOSE, "--rm service ")] {
        let text = line(text);
        let create = text.split_once(&format!("{before}create ")).unwrap().1;
        let words = create.lines().next().unwrap().split_whitespace().map(str::to_owned);
        let command: Vec<_> = ["create".to_owned()].into_iter().chain(words).collect();
        assert_eq!(command[1], "/data/api.gate");
        accept(&command);
    }
}

#[test]
fn service_for_compose_gets_its_volume_and_its_secret() {
    let (file, service) = (YamlLoader::load_from_str(COMPOSE).unwrap(), service());
    let volume = service["volumes"][0].as_str().unwrap().split_once(':').unwrap();
    assert_eq!(volume.1, instruction("VOLUME"));
    assert!(file[0]["volumes"].as_hash().unwrap().contains_key(&Yaml::String(volume.0.into())));
    let secret = service["secrets"][0].as_str().unwrap();
    let pepper = service["environment"]["KEYTALLY_PEPPER_FILE"].as_str().unwrap();
    assert_eq!(pepper, format!("/run/secrets/{secret}"));
    assert_eq!(file[0]["secrets"][secret]["file"].as_str(), Some("pepper"));
    let user = instruction("USER").split(':').next().unwrap();
    assert!(COMPOSE.contains(&format!("sudo chown {user} pepper")));
}
