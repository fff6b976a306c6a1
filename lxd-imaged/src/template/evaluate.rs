//! Carries out a template's tree, counting every step.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem;
use std::rc::Rc;

use super::Context;
use super::document::{Condition, For, Node};
use super::error::{Fault, Kind};
use super::expression::{Call, Expression, Logic, Operand, Product, Relation, Step, Sum};
use super::filters::{self, Filter};
use super::value::{Loop, Value};

/// The work that a template may still be.
#[derive(Debug)]
pub(super) struct Work {
    left: usize,
}

impl Work {
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Kind> {
        self.left = self.left.checked_sub(steps).ok_or(Kind::Limit(super::STEPS_LIMIT))?;
        Ok(())
    }

    /// For text of so many bytes that is made or looked through.
    pub(super) fn text(&mut self, bytes: usize) -> Result<(), Kind> {
        if bytes > super::MAX_OUTPUT {
            return Err(Kind::Limit(super::OUTPUT_LIMIT));
        }
        self.spend(bytes / 16 + 1)
    }

    /// For a list of so many elements that is made.
    pub(super) fn list(&mut self, elements: usize) -> Result<(), Kind> {
        self.spend(elements.saturating_mul(4))
    }

    /// For an operation that may look at all of a value.
    pub(super) fn look(&mut self, value: &Value) -> Result<(), Kind> {
        match value {
            Value::Text(text) => self.text(text.len()),
            Value::List(list) => self.spend(list.len() + 1),
            _ => self.spend(1),
        }
    }
}

/// Renders what was parsed.
pub(super) fn evaluate(nodes: &[Node<'_>], context: &Context) -> Result<String, Fault> {
    let devices = context.devices.iter().map(|(name, device)| (name.clone(), Value::from(device)));
    let instance = Value::from(&context.instance);
    let names = BTreeMap::from([
        ("trigger".into(), context.trigger.as_str().into()),
        ("path".into(), context.path.as_str().into()),
        ("container".into(), instance.clone()),
        ("instance".into(), instance),
        ("config".into(), Value::from(&context.config)),
        ("devices".into(), Value::Map(Rc::new(devices.collect()))),
        ("properties".into(), Value::from(&context.properties)),
        ("config_get".into(), Value::ConfigGet),
    ]);
    let mut evaluator = Evaluator {
        config: &context.config,
        scopes: vec![names, BTreeMap::new()],
        output: String::new(),
        held_back: 0,
        autoescape: false,
        work: Work { left: super::MAX_STEPS },
    };
    evaluator.nodes(nodes)?;
    Ok(evaluator.output)
}

struct Evaluator<'c> {
    config: &'c BTreeMap<String, String>,
    /// The last is the innermost.
    scopes: Vec<BTreeMap<String, Value>>,
    output: String,
    /// The length of outputs that wait while the body of a tag is rendered on its own.
    held_back: usize,
    autoescape: bool,
    work: Work,
}

/// Gives what went wrong its place.
fn at(offset: usize) -> impl Fn(Kind) -> Fault {
    move |kind| Fault { offset, kind }
}

impl Evaluator<'_> {
    fn nodes(&mut self, nodes: &[Node<'_>]) -> Result<(), Fault> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &Node<'_>) -> Result<(), Fault> {
        match node {
            Node::Text { offset, text } => self.write(text, *offset)?,
            Node::Output { offset, value } => {
                let escape = self.autoescape && !value.is_safe();
                let value = self.expression(value, *offset)?;
                let escape = escape && matches!(value, Value::Text(_));
                self.write_value(&value, escape, *offset)?;
            }
            Node::If { offset, branches, otherwise } => {
                for (condition, body) in branches {
                    if self.holds(condition, *offset)? {
                        return self.nodes(body);
                    }
                }
                self.nodes(otherwise)?;
            }
            Node::For(node) => self.run_for(node)?,
            Node::Set { offset, name, value } => {
                let value = self.expression(value, *offset)?;
                self.set(name, value);
            }
            Node::With { offset, names, body } => {
                let mut scope = BTreeMap::new();
                for (name, value) in names {
                    scope.insert(name.clone(), self.expression(value, *offset)?);
                }
                self.scopes.push(scope);
                self.nodes(body)?;
                self.scopes.pop();
            }
            Node::Autoescape { on, body } => {
                let before = mem::replace(&mut self.autoescape, *on);
                self.nodes(body)?;
                self.autoescape = before;
            }
            Node::Filter { offset, filters, body } => {
                let text = self.rendered(body)?;
                let value = self.filtered(Value::from(text), filters)?;
                self.write_value(&value, false, *offset)?;
            }
            Node::Spaceless { offset, body } => {
                let text = self.rendered(body)?;
                self.write(&filters::spaceless(&text), *offset)?;
            }
            Node::FirstOf { offset, values } => {
                for expression in values {
                    let value = self.expression(expression, *offset)?;
                    if value.is_true() {
                        let escape = self.autoescape && !expression.is_safe();
                        return self.write_value(&value, escape, *offset);
                    }
                }
            }
            Node::Block(body) => self.nodes(body)?,
        }
        Ok(())
    }

    fn write_value(&mut self, value: &Value, escape: bool, offset: usize) -> Result<(), Fault> {
        let text = value.text();
        if escape {
            self.write(&filters::escaped(&text), offset)
        } else {
            self.write(&text, offset)
        }
    }

    fn write(&mut self, text: &str, offset: usize) -> Result<(), Fault> {
        let length = self.held_back + self.output.len() + text.len();
        if length > super::MAX_OUTPUT {
            return Err(Fault::limit(offset, super::OUTPUT_LIMIT));
        }
        self.work.text(text.len()).map_err(at(offset))?;
        self.output.push_str(text);
        Ok(())
    }

    /// What a body renders to, apart from the output.
    fn rendered(&mut self, body: &[Node<'_>]) -> Result<String, Fault> {
        let output = mem::take(&mut self.output);
        self.held_back += output.len();
        self.nodes(body)?;
        self.held_back -= output.len();
        Ok(mem::replace(&mut self.output, output))
    }

    fn holds(&mut self, condition: &Condition, offset: usize) -> Result<bool, Fault> {
        match condition {
            Condition::True(value) => Ok(self.expression(value, offset)?.is_true()),
            Condition::Same { left, right, wanted } => {
                let left = self.expression(left, offset)?;
                let right = self.expression(right, offset)?;
                self.work.look(&left).map_err(at(offset))?;
                Ok(left.equals(&right) == *wanted)
            }
        }
    }

    fn set(&mut self, name: &str, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), value);
        }
    }

    fn lookup(&self, name: &str) -> Value {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned().unwrap_or(Value::Nil)
    }

    fn run_for(&mut self, node: &For<'_>) -> Result<(), Fault> {
        let over = self.expression(&node.over, node.offset)?;
        let items = self.items(&over, node).map_err(at(node.offset))?;
        let parent = self.lookup("forloop");
        self.scopes.push(BTreeMap::new());
        for (index, (key, value)) in items.iter().enumerate() {
            self.work.spend(1).map_err(at(node.offset))?;
            let state = Loop { index, count: items.len(), parent: parent.clone() };
            self.set("forloop", Value::Loop(Rc::new(state)));
            self.set(&node.key, key.clone());
            if let (Some(name), Some(value)) = (&node.value, value) {
                self.set(name, value.clone());
            }
            self.nodes(&node.body)?;
        }
        if items.is_empty() {
            self.nodes(&node.empty)?;
        }
        self.scopes.pop();
        Ok(())
    }

    /// What a loop goes through: elements, characters, or keys with their values. Keys are always
    /// in order, so that the same configuration gives the same file.
    fn items(&mut self, over: &Value, node: &For<'_>) -> Result<Vec<(Value, Option<Value>)>, Kind> {
        self.work.look(over)?;
        self.work.list(over.length())?;
        let mut items: Vec<(Value, Option<Value>)> = match over {
            Value::List(list) => list.iter().map(|item| (item.clone(), None)).collect(),
            Value::Text(text) => text.chars().map(|c| (Value::character(c), None)).collect(),
            Value::Map(map) => map
                .iter()
                .map(|(key, value)| (Value::from(key.as_str()), Some(value.clone())))
                .collect(),
            _ => Vec::new(),
        };
        if node.sorted && !matches!(over, Value::Map(_)) {
            let bytes: usize = items.iter().map(|(item, _)| item.size()).sum();
            self.work.spend(items.len().saturating_mul(16).saturating_add(bytes / 2))?;
            items.sort_by(|(a, _), (b, _)| a.order(b));
        }
        if node.reversed {
            items.reverse();
        }
        Ok(items)
    }

    /// The value of an expression; `offset` is where errors are reported that have no place of
    /// their own.
    fn expression(&mut self, expression: &Expression, offset: usize) -> Result<Value, Fault> {
        self.work.spend(1).map_err(at(offset))?;
        match expression {
            Expression::Filtered { base, filters } => {
                let value = self.operand(base, offset)?;
                self.filtered(value, filters)
            }
            Expression::Logic { first, rest } => self.logic(first, rest, offset),
            Expression::Relation { first, rest } => {
                let first = self.expression(first, offset)?;
                let mut values = Vec::with_capacity(rest.len());
                for (operator, operand) in rest {
                    values.push((*operator, self.expression(operand, offset)?));
                }
                self.relation(first, values).map_err(at(offset))
            }
            Expression::Sum { minus, not, first, rest } => {
                let mut value = self.expression(first, offset)?;
                if *not {
                    value = value.negated();
                }
                if let Some(offset) = minus {
                    value = minus_of(&value).map_err(at(*offset))?;
                }
                for (operator, operand) in rest {
                    let operand = self.expression(operand, offset)?;
                    value = self.sum(&value, *operator, &operand).map_err(at(offset))?;
                }
                Ok(value)
            }
            Expression::Product { first, rest } => {
                let mut value = self.expression(first, offset)?;
                for (operator, offset, operand) in rest {
                    let operand = self.expression(operand, *offset)?;
                    value = self.product(&value, *operator, &operand).map_err(at(*offset))?;
                }
                Ok(value)
            }
            Expression::Power { first, rest } => {
                let mut values = vec![self.expression(first, offset)?.float()];
                for operand in rest {
                    let operand = self.expression(operand, offset)?;
                    self.work.look(&operand).map_err(at(offset))?;
                    values.push(operand.float());
                }
                let power = values.into_iter().rev().reduce(|power, base| base.powf(power));
                Ok(power.map_or(Value::Nil, Value::Float))
            }
        }
    }

    fn logic(
        &mut self,
        first: &Expression,
        rest: &[(Logic, Expression)],
        offset: usize,
    ) -> Result<Value, Fault> {
        let mut value = self.expression(first, offset)?;
        for (operator, operand) in rest {
            let decided = value.is_true() == (*operator == Logic::Or);
            if decided {
                break;
            }
            value = self.expression(operand, offset)?;
        }
        Ok(Value::Bool(value.is_true()))
    }

    fn relation(&mut self, first: Value, rest: Vec<(Relation, Value)>) -> Result<Value, Kind> {
        let (mut operators, mut values) = (Vec::new(), vec![first]);
        for (operator, value) in rest {
            operators.push(operator);
            values.push(value);
        }
        let mut right = values.pop().unwrap_or(Value::Nil);
        while let (Some(left), Some(operator)) = (values.pop(), operators.pop()) {
            self.work.look(&left)?;
            self.work.look(&right)?;
            let order = || left.compare(&right);
            let holds = match operator {
                Relation::Equal => left.equals(&right),
                Relation::Unequal => !left.equals(&right),
                Relation::Less => order().is_some_and(Ordering::is_lt),
                Relation::LessOrEqual => order().is_some_and(Ordering::is_le),
                Relation::Greater => order().is_some_and(Ordering::is_gt),
                Relation::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
                Relation::In => {
                    self.work.spend(right.elements().saturating_mul(left.size() / 16))?;
                    right.contains(&left)
                }
            };
            right = Value::Bool(holds);
        }
        Ok(right)
    }

    fn sum(&mut self, left: &Value, operator: Sum, right: &Value) -> Result<Value, Kind> {
        self.work.look(left)?;
        self.work.look(right)?;
        if matches!(operator, Sum::Plus) && (left.is_plain_text() || right.is_plain_text()) {
            let (left, right) = (left.text(), right.text());
            self.work.text(left.len() + right.len())?;
            return Ok(Value::from([&*left, &*right].concat()));
        }
        Ok(match (operator, left.is_float() || right.is_float()) {
            (Sum::Plus, true) => Value::Float(left.float() + right.float()),
            (Sum::Minus, true) => Value::Float(left.float() - right.float()),
            (Sum::Plus, false) => Value::Int(left.integer().wrapping_add(right.integer())),
            (Sum::Minus, false) => Value::Int(left.integer().wrapping_sub(right.integer())),
        })
    }

    fn product(&mut self, left: &Value, operator: Product, right: &Value) -> Result<Value, Kind> {
        self.work.look(left)?;
        self.work.look(right)?;
        if left.is_float() || right.is_float() {
            match operator {
                Product::Times => return Ok(Value::Float(left.float() * right.float())),
                Product::By => return Ok(Value::Float(left.float() / right.float())),
                Product::Modulo => {}
            }
        }
        let (left, right) = (left.integer(), right.integer());
        match operator {
            Product::Times => Ok(Value::Int(left.wrapping_mul(right))),
            _ if right == 0 => Err(Kind::Value("can't divide by 0".to_owned())),
            Product::By => Ok(Value::Int(left.wrapping_div(right))),
            Product::Modulo => Ok(Value::Int(left.wrapping_rem(right))),
        }
    }

    fn filtered(&mut self, mut value: Value, filters: &[Call]) -> Result<Value, Fault> {
        for Call { offset, filter, parameter } in filters {
            let parameter = match parameter {
                Some(operand) => self.operand(operand, *offset)?,
                None => Value::Nil,
            };
            value = self.filter(*filter, &value, &parameter).map_err(at(*offset))?;
        }
        Ok(value)
    }

    fn filter(&mut self, filter: Filter, input: &Value, parameter: &Value) -> Result<Value, Kind> {
        self.work.look(input)?;
        self.work.look(parameter)?;
        let value = filter.apply(input, parameter, &mut self.work)?;
        self.work.look(&value)?;
        Ok(value)
    }

    fn operand(&mut self, operand: &Operand, offset: usize) -> Result<Value, Fault> {
        match operand {
            Operand::Bool(value) => Ok(Value::Bool(*value)),
            Operand::Int(number) => Ok(Value::Int(*number)),
            Operand::Float(number) => Ok(Value::Float(*number)),
            Operand::Text(text) => Ok(Value::Text(Rc::clone(text))),
            Operand::Path { offset: place, name, steps } => {
                self.work.spend(1).map_err(at(offset))?;
                self.path(*place, name, steps)
            }
        }
    }

    /// Follows a name into its value. Once there is nothing, nothing is what comes of it.
    fn path(&mut self, offset: usize, name: &str, steps: &[Step]) -> Result<Value, Fault> {
        let mut value = self.lookup(name);
        for step in steps {
            self.work.spend(1).map_err(at(offset))?;
            if matches!(value, Value::Nil) {
                return Ok(Value::Nil);
            }
            value = match step {
                Step::Call(arguments) => self.call(&value, name, arguments, offset)?,
                _ if matches!(value, Value::ConfigGet) => return Err(no_call(offset)),
                Step::Field(field) => match &value {
                    Value::Map(map) => map.get(field).cloned().unwrap_or(Value::Nil),
                    Value::Loop(state) => state.field(field),
                    other => {
                        let kind = other.kind();
                        let message = format!("can't take `{field}` out of `{name}`: it is {kind}");
                        return Err(Fault::value(offset, message));
                    }
                },
                Step::Index(index) => element(&value, *index, name).map_err(at(offset))?,
                Step::Subscript(expression) => {
                    let key = self.expression(expression, offset)?;
                    self.work.look(&key).map_err(at(offset))?;
                    match (&value, &key) {
                        (Value::Map(map), Value::Text(key)) => {
                            map.get(&**key).cloned().unwrap_or(Value::Nil)
                        }
                        (Value::Map(_), _) => Value::Nil,
                        _ => match usize::try_from(key.integer()) {
                            Ok(index) => element(&value, index, name).map_err(at(offset))?,
                            Err(_) => Value::Nil,
                        },
                    }
                }
            };
        }
        if matches!(value, Value::ConfigGet) {
            return Err(no_call(offset));
        }
        Ok(value)
    }

    fn call(
        &mut self,
        function: &Value,
        name: &str,
        arguments: &[Expression],
        offset: usize,
    ) -> Result<Value, Fault> {
        if !matches!(function, Value::ConfigGet) {
            let message = format!("`{name}` is no function: it is {}", function.kind());
            return Err(Fault::value(offset, message));
        }
        let [key, default] = arguments else { return Err(no_call(offset)) };
        let key = self.expression(key, offset)?;
        let default = self.expression(default, offset)?;
        self.work.look(&key).map_err(at(offset))?;
        let Some(value) = self.config.get(&*key.text()) else { return Ok(default) };
        self.work.text(value.len()).map_err(at(offset))?;
        Ok(Value::from(value.trim_end_matches(['\r', '\n'])))
    }
}

fn no_call(offset: usize) -> Fault {
    Fault::value(offset, "expected `config_get(KEY, DEFAULT)` with these two arguments")
}

fn minus_of(value: &Value) -> Result<Value, Kind> {
    match value {
        Value::Int(number) => Ok(Value::Int(number.wrapping_neg())),
        Value::Float(number) => Ok(Value::Float(-number)),
        other => Err(Kind::Value(format!("expected a number after `-`, this is {}", other.kind()))),
    }
}

/// The element of a list; of a text it is the number of the byte, odd as that is.
fn element(value: &Value, index: usize, name: &str) -> Result<Value, Kind> {
    match value {
        Value::List(list) => Ok(list.get(index).cloned().unwrap_or(Value::Nil)),
        Value::Text(text) => {
            Ok(text.as_bytes().get(index).map_or(Value::Nil, |byte| Value::Int((*byte).into())))
        }
        other => {
            let kind = other.kind();
            Err(Kind::Value(format!("can't take element {index} of `{name}`: it is {kind}")))
        }
    }
}
