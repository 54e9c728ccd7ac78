//! Golden tests: what compose made of realistic files, and what that is here.

use super::*;

/// As 1.29 prints it.
const SHOP: &str = include_str!("golden/shop.yaml");
/// As version 2 prints it.
const BLOG: &str = include_str!("golden/blog.yaml");

fn shown(imported: &Imported) -> String {
    let specs: Vec<String> = imported
        .specs
        .iter()
        .map(|spec| yaml(spec).unwrap())
        .collect();
    let notes: String = imported
        .notes
        .iter()
        .map(|note| format!("# {note}\n"))
        .collect();
    format!("{}{notes}", specs.join("---\n"))
}

fn read_again(imported: &Imported) {
    for spec in &imported.specs {
        let text = yaml(spec).unwrap();
        assert_eq!(
            hostler_model::spec::parse_one(&text).unwrap(),
            *spec,
            "{text}"
        );
    }
}

#[test]
fn each_service_becomes_a_container_with_all_that_has_a_place() {
    for (name, text) in [("shop", SHOP), ("blog", BLOG)] {
        let imported = containers(name, text, &[]).unwrap();
        read_again(&imported);
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_snapshot!(name, shown(&imported));
        });
    }
}

#[test]
fn a_service_of_a_profile_comes_along_when_it_is_named() {
    let names = |profiles: &[String]| {
        let imported = containers("shop", SHOP, profiles).unwrap();
        imported
            .specs
            .into_iter()
            .map(|it| it.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["shop-db", "shop-web"]);
    assert_eq!(
        names(&["tools".to_owned()]),
        ["shop-db", "shop-tool", "shop-web"]
    );
}

#[test]
fn a_project_keeps_its_text_and_gets_the_variables_that_it_uses() {
    let text = "services:\n  web:\n    image: shop/web:${TAG:-latest}\n    build: ./web\n    env_file: web.env\n    \
                environment: { KEY: \"${KEY:?}\", NONE: \"$NONE\" }\n    ports: [\"8081:80\", \"${PORT}:81\"]\n    \
                volumes: [\"./site:/www\", \"data:/data\"]\nvolumes: { data: {} }\n";
    let variables = [("KEY", "k"), ("UNUSED", "u"), ("PATH", "/bin")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let imported = project("My_Shop", text, &variables.into(), &["x".to_owned()]).unwrap();
    read_again(&imported);
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!("project", shown(&imported));
    });
    assert_eq!(imported.specs[0].compose.as_ref().unwrap().file, text);
}

#[test]
fn what_is_no_compose_file_is_refused() {
    for text in ["a: 1", "services: {}", "services: [", ""] {
        let of_project = project("x", text, &BTreeMap::new(), &[]);
        assert_eq!(
            of_project.unwrap_err().code.to_string(),
            "spec-invalid",
            "{text}"
        );
        assert!(containers("x", text, &[]).is_err(), "{text}");
    }
}
