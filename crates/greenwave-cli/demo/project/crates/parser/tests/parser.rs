use calc_parser::parse;

/// The tree, printed with the fewest parentheses that keep its shape.
fn shape(source: &str) -> String {
    parse(source).expect("a valid expression").to_string()
}

#[test]
fn products_bind_more_tightly_than_sums() {
    assert_eq!(shape("1+2*3"), "1 + 2 * 3");
    assert_eq!(shape("(1+2)*3"), "(1 + 2) * 3");
}

#[test]
fn differences_group_to_the_left() {
    assert_eq!(shape("(1-2)-3"), "1 - 2 - 3");
    assert_eq!(shape("1-2-3"), shape("(1-2)-3"));
    assert_eq!(shape("8/4/2"), shape("(8/4)/2"));
}

#[test]
fn power_is_right_associative() {
    assert_eq!(shape("2^3^2"), "2 ^ 3 ^ 2");
    assert_eq!(shape("(2^3)^2"), "(2 ^ 3) ^ 2");
}

#[test]
fn a_sign_binds_less_tightly_than_a_power() {
    assert_eq!(shape("-2^2"), shape("-(2^2)"));
    assert_eq!(shape("2^-1"), "2 ^ -1");
}

#[test]
fn calls_take_any_count_of_arguments() {
    assert_eq!(shape("max(1, x, min(2,3))"), "max(1, x, min(2, 3))");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let message = |source: &str| parse(source).unwrap_err().to_string();
    assert_eq!(message("1 +"), "the expression ends where a value should stand");
    assert_eq!(message("1 + )"), "unexpected `)` at 4");
    assert_eq!(message("(1 + 2"), "the expression ends where `)` should stand");
    assert_eq!(message("1 2"), "unexpected `2` at 2");
}
